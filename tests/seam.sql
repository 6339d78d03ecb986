-- The pipeline on tables of your own.
--
-- crm stands for a project's own schema: its accounts are what Actorscope calls organizations, its products
-- are the apps, and members have ranks. Nothing but the functions below knows of it:
--
--   crm.people     auth_id uuid, blocked boolean                        auth_id: auth.users.id
--   crm.accounts   account_no bigint, title text
--   crm.products   sku text, account_no bigint
--   crm.members    member uuid, account_no bigint, sku text, rank text  member: a person, or an API key;
--                                                                       sku: null for all products
--
-- `create or replace` keeps each function's owner and grants. public.orgs, public.apps and tracking's roles
-- are not asked any more.


-- Keys ----------------------------------------------------------------------------------------------
-- An organization's id is a UUID. Account 7 is 00000000-0000-8000-8000-000000000007, there and back.

create function crm.org_of(account_no bigint)
  returns uuid
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return '00000000-0000-8000-8000-' || lpad(to_hex(account_no), 12, '0');
end $$;

create function crm.account_of(org_id uuid)
  returns bigint
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  if org_id::text like '00000000-0000-8000-8000-%' then
    return ('x' || right(org_id::text, 12))::bit(48)::bigint;
  end if;
  return null;
end $$;


-- Who is calling ------------------------------------------------------------------------------------
-- tracking.jwt_subject() and tracking.current_api_key() believe claims and headers only where the Data API
-- sent them; auth.uid() believes everybody who can set a setting. Here a blocked person is nobody.

create or replace function tracking.actor()
  returns uuid
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p.auth_id
    from   crm.people as p
    where  p.auth_id = coalesce(tracking.jwt_subject(), (tracking.current_api_key()).owner_id)
    and    not p.blocked
  );
end $$;

-- What the caller is a member of: of an account, or of one product. An API key is a member of its own, with
-- rights of its own and none of its owner's.
create function crm.own_memberships()
  returns setof crm.members
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select m.*
    from   crm.members as m
    where  m.member = tracking.principal()
    and    tracking.actor() is not null;
end $$;
revoke execute on function crm.own_memberships from public;


-- What they may, one thing at a time ----------------------------------------------------------------
-- The service role may do anything with what exists.

create or replace function org.read(org_id uuid)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tracking.is_service() then
    return exists (select from crm.accounts as a where a.account_no = crm.account_of(read.org_id));
  end if;
  return read.org_id in (select r.org_id from org.readable() as r (org_id));
end $$;

create or replace function app.read(app_id text)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tracking.is_service() then
    return exists (select from crm.products as p where p.sku = read.app_id);
  end if;
  return read.app_id in (select r.app_id from app.readable() as r);
end $$;

create or replace function app.build(app_id text)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tracking.is_service() then
    return exists (select from crm.products as p where p.sku = build.app_id);
  end if;
  return exists (
    select
    from   crm.products as p
    join   crm.own_memberships() as m on m.account_no = p.account_no and coalesce(m.sku, p.sku) = p.sku
    where  p.sku = build.app_id
    and    m.rank = 'owner'
  );
end $$;

create or replace function app.owner_org(app_id text)
  returns uuid
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select crm.org_of(p.account_no) from crm.products as p where p.sku = owner_org.app_id);
end $$;

-- In old data an account is a number.
create or replace function org.known_as(id text)
  returns uuid
  language plpgsql stable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select crm.org_of(a.account_no)
    from   crm.accounts as a
    where  known_as.id in (a.account_no::text, crm.org_of(a.account_no)::text)
  );
end $$;


-- What they may, everything at once: for policies ---------------------------------------------------

create or replace function org.readable()
  returns setof uuid
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select distinct crm.org_of(m.account_no)
    from   crm.own_memberships() as m
    where  m.sku is null;
end $$;

create or replace function app.readable()
  returns table (app_id text, owner_org uuid)
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select distinct p.sku, crm.org_of(p.account_no)
    from   crm.products as p
    join   crm.own_memberships() as m on m.account_no = p.account_no and coalesce(m.sku, p.sku) = p.sku;
end $$;


-- What things are called ----------------------------------------------------------------------------
-- For sinks: they are run as the service role alone. Addresses for mail are auth.users' here too.

create or replace function org.name(org_id uuid)
  returns text
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select a.title from crm.accounts as a where a.account_no = crm.account_of(name.org_id));
end $$;

create or replace function app.name(app_id text)
  returns text
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select initcap(p.sku) from crm.products as p where p.sku = name.app_id);
end $$;

create or replace function org.admins(org_id uuid)
  returns table (actor_id uuid, email text)
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select p.auth_id, tracking.email(p.auth_id)
    from   crm.members as m
    join   crm.people as p on p.auth_id = m.member and not p.blocked
    where  m.account_no = crm.account_of(admins.org_id)
    and    m.rank = 'owner'
    and    m.sku is null
    order  by 1;
end $$;
