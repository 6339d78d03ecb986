-- migrate:up

-- Chapter 9: retention.
--
-- The log's months: made ahead, and caught up with where events came for a month that had none.

-- Makes the partitions of the current month and of the months ahead, and one for each month that has rows
-- in the default partition, moving them there. One maker at a time; and where a partition is missing,
-- writers wait for it before they choose theirs, for milliseconds. Where somebody is in the way for half a
-- second, the maker gives way (55P03) rather than have everybody queue behind it, and the next run tries
-- again.
create function tracking.make_partitions(months_ahead integer default 3)
  returns integer
  language plpgsql volatile security definer -- the service role may run it, and owns no table
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '500ms'
as $$
declare
  v_month timestamp;
  v_made  integer := 0;
begin
  perform pg_advisory_xact_lock(hashtext('tracking.make_partitions'));
  for v_month in
    select generate_series(
      date_trunc('month', now() at time zone 'UTC'),
      date_trunc('month', now() at time zone 'UTC') + make_interval(months => months_ahead),
      interval '1 month')
    union
    select date_trunc('month', d.occurred_at at time zone 'UTC') from tracking.events_default as d
    order by 1
  loop
    if to_regclass(tracking.partition_of(v_month)) is null then
      lock table public.events in share row exclusive mode;
      perform tracking.make_partition(v_month);
      v_made := v_made + 1;
    end if;
  end loop;
  return v_made;
end $$;
comment on function tracking.make_partitions is
  'Makes the monthly partitions up to months_ahead from now, and those that rows in the default partition call for. Answers how many it made.';
revoke execute on function tracking.make_partitions from public;
grant execute on function tracking.make_partitions to service_role;

-- The name of a month's partition.
create function tracking.partition_of(month timestamp)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format('tracking.events_%s_%s', lpad(date_part('year', month)::text, 4, '0'), lpad(date_part('month', month)::text, 2, '0'));
end $$;
comment on function tracking.partition_of is 'The name of the partition that holds a month, in UTC.';
revoke execute on function tracking.partition_of from public;

-- Makes one month's partition beside the log, fills it from the default partition, and attaches it:
-- "create table … partition of" would lock the whole log instead.
create function tracking.make_partition(month timestamp)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text := tracking.partition_of(month);
  v_from timestamptz := month at time zone 'UTC';
  v_to   timestamptz := (month + interval '1 month') at time zone 'UTC';
begin
  execute format('create table %s (like public.events including defaults including constraints)', v_name);
  execute format('comment on table %s is %L', v_name, 'Events of ' || to_char(month, 'FMMonth YYYY') || ' (UTC).');
  execute format('alter table %s enable row level security', v_name);
  execute format('revoke all on %s from anon, authenticated, service_role', v_name);

  lock table tracking.events_default in access exclusive mode;
  execute format(
    'with moved as (delete from tracking.events_default where occurred_at >= %L and occurred_at < %L returning *)
     insert into %s select * from moved', v_from, v_to, v_name);
  execute format('alter table public.events attach partition %s for values from (%L) to (%L)', v_name, v_from, v_to);
end $$;
comment on function tracking.make_partition is 'Makes the partition of a month, with the rows that wait for it in the default partition.';
revoke execute on function tracking.make_partition from public;

create view tracking.partition_report with (security_invoker = true) as
  select date_trunc('month', d.occurred_at at time zone 'UTC') as month,
         count(*) as rows_in_default,
         min(d.received_at) as first_received_at,
         max(d.received_at) as last_received_at
  from   tracking.events_default as d
  group  by 1;
comment on view tracking.partition_report is
  'Months whose events lie in the default partition: empty as long as partitions are made in time. tracking.make_partitions() clears it.';
grant select on tracking.partition_report, tracking.events_default to service_role;

select tracking.make_partitions();

do $$
begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    perform cron.schedule('actorscope-make-partitions', '17 * * * *', 'select tracking.make_partitions()');
  end if;
end $$;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
