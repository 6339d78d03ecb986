-- What a database is made of, a line an object: to compare what two ways of applying the chapters end in.
-- The bookkeeping of dbmate and of the Supabase CLI is left out.
with schemas as (
  select oid, nspname as name
  from   pg_namespace
  where  nspname !~ '^pg_'
  and    nspname not in ('information_schema', 'dbmate', 'supabase_migrations')
),
relations as (
  select c.*, s.name as schema
  from   pg_class as c
  join   schemas as s on s.oid = c.relnamespace
)
select 'schema ' || s.name as object,
       concat_ws(' | ', n.nspacl::text, obj_description(n.oid, 'pg_namespace')) as definition
from   schemas as s
join   pg_namespace as n using (oid)
union all
select 'relation ' || r.schema || '.' || r.relname,
       concat_ws(' | ', r.relkind, r.relrowsecurity, r.relforcerowsecurity, r.relacl::text, r.reloptions::text,
         pg_get_expr(r.relpartbound, r.oid), pg_get_partkeydef(r.oid),
         case when r.relkind in ('i', 'I') then pg_get_indexdef(r.oid) end,
         case when r.relkind in ('v', 'm') then pg_get_viewdef(r.oid) end,
         obj_description(r.oid, 'pg_class'))
from   relations as r
union all
select 'column ' || r.schema || '.' || r.relname || '.' || a.attname,
       concat_ws(' | ', a.attnum, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
         pg_get_expr(d.adbin, d.adrelid), a.attacl::text, col_description(r.oid, a.attnum))
from   relations as r
join   pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
left   join pg_attrdef as d on d.adrelid = r.oid and d.adnum = a.attnum
union all
select 'constraint ' || r.schema || '.' || r.relname || '.' || c.conname, pg_get_constraintdef(c.oid)
from   relations as r
join   pg_constraint as c on c.conrelid = r.oid
union all
select 'trigger ' || r.schema || '.' || r.relname || '.' || t.tgname, pg_get_triggerdef(t.oid)
from   relations as r
join   pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal
union all
select 'policy ' || p.schemaname || '.' || p.tablename || '.' || p.policyname,
       concat_ws(' | ', p.permissive, p.roles::text, p.cmd, p.qual, p.with_check)
from   pg_policies as p
join   schemas as s on s.name = p.schemaname
union all
select 'function ' || s.name || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
       concat_ws(' | ', pg_get_functiondef(p.oid), p.proacl::text, obj_description(p.oid, 'pg_proc'))
from   pg_proc as p
join   schemas as s on s.oid = p.pronamespace
where  p.prokind in ('f', 'p')
union all
select 'type ' || s.name || '.' || t.typname,
       concat_ws(' | ', t.typtype, t.typacl::text, obj_description(t.oid, 'pg_type'),
         (select string_agg(e.enumlabel, ', ' order by e.enumsortorder) from pg_enum as e where e.enumtypid = t.oid))
from   pg_type as t
join   schemas as s on s.oid = t.typnamespace
order  by object, definition
