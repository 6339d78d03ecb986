-- migrate:up

-- Chapter 9: retention.
--
-- The log's months: made ahead, caught up with where events came for a month that had none, and dropped when they are
-- old and every sink is done with them.


-- Months ahead --------------------------------------------------------------------------------------

-- Makes the partitions of the current month and of the months ahead, of the months of given days, and of each month
-- that has rows in the default partition, moving them there. One maker at a time; and where a partition is missing,
-- writers wait for it before they choose theirs, for milliseconds. Where somebody is in the way for half a
-- second, the maker gives way (55P03) rather than have everybody queue behind it, and the next run tries
-- again.
create function tracking.make_partitions(months_ahead integer default 3, days date[] default '{}')
  returns integer
  language plpgsql volatile security definer -- the service role may run it, and owns no table
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '500ms'
as $$
declare
  v_month timestamp;
  v_made  integer := 0;
begin
  perform tracking.refuse_restored_log(); -- which knows by its rows' xmin where they were written, until they are moved
  perform pg_advisory_xact_lock(hashtext('tracking.make_partitions'));
  for v_month in
    select generate_series(
      date_trunc('month', now() at time zone 'UTC'),
      date_trunc('month', now() at time zone 'UTC') + make_interval(months => months_ahead),
      interval '1 month')
    union
    select date_trunc('month', d.day::timestamp) from unnest(days) as d (day)
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
  'Makes the monthly partitions up to months_ahead from now, those of the given days, and those that rows in the '
  'default partition call for. '
  'Answers how many it made. Errors: 55P03 where somebody is in the way, log_restored.';
revoke execute on function tracking.make_partitions from public;
grant execute on function tracking.make_partitions to service_role;

-- The name of a month's partition.
create function tracking.partition_of(month timestamp)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format('tracking.events_%s_%s',
    lpad(date_part('year', month)::text, 4, '0'), lpad(date_part('month', month)::text, 2, '0'));
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
comment on function tracking.make_partition is
  'Makes the partition of a month, with the rows that wait for it in the default partition.';
revoke execute on function tracking.make_partition from public;

create view tracking.partition_report with (security_invoker = true) as
  select date_trunc('month', d.occurred_at at time zone 'UTC') as month,
         count(*) as rows_in_default,
         min(d.received_at) as first_received_at,
         max(d.received_at) as last_received_at
  from   tracking.events_default as d
  group  by 1;
comment on view tracking.partition_report is
  'Months whose events lie in the default partition: empty as long as partitions are made in time. '
  'tracking.make_partitions() clears it.';
grant select on tracking.partition_report, tracking.events_default to service_role;



-- Months behind -------------------------------------------------------------------------------------

create table tracking.dropped_partitions (
  partition        text        not null,
  since            timestamptz not null,
  until            timestamptz not null,
  events           bigint      not null,
  last_received_at timestamptz,
  dropped_at       timestamptz not null default clock_timestamp(),
  primary key (partition, dropped_at)
);
comment on table tracking.dropped_partitions is
  'What tracking.drop_partitions() took out of the log: no replay brings it back.';
comment on column tracking.dropped_partitions.since is 'Its events happened from then on,';
comment on column tracking.dropped_partitions.until is 'and before then.';
comment on column tracking.dropped_partitions.last_received_at is
  'When the last of them was received; null: there were none.';
alter table tracking.dropped_partitions enable row level security;
grant select on tracking.dropped_partitions to service_role;

-- Drops the partitions that lie wholly in the past before a span of time, such as '13 months', and that every sink
-- is done with: a disabled one, too, and one that has leased a batch. Says of each what became of it. Dead letters
-- are kept, since they are whole without the log.
--
-- First the partitions are looked at and counted, for the sinks' books, which may take a while and is in nobody's
-- way but of those who would make a sink or rewind one. Then the log is locked, for milliseconds: whoever has
-- written to it and not committed, or reads it, holds a lock on it, and is given way to after a tenth of a second
-- (55P03), as in tracking.make_partitions. (Postgres detaches concurrently neither in a function nor from a table
-- that has a default partition.) So nobody can be about to commit an event into a partition that is dropped.
create function tracking.drop_partitions(older_than interval)
  returns table (partition text, dropped boolean, events bigint, reason text)
  language plpgsql volatile security definer -- the service role may run it, and owns no table
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '100ms'
as $$
declare
  v_looked pg_snapshot;
  v_old    record;
  v_sinks  text;
  v_ready  jsonb := '[]';
begin
  if coalesce(older_than < '0', true) then
    raise invalid_parameter_value using
      message = 'Partitions are dropped that are older than a span of time.',
      hint = 'Keep a year and a month with tracking.drop_partitions(''13 months'').';
  elsif current_setting('transaction_isolation') <> 'read committed' then
    raise active_sql_transaction using
      message = 'Partitions are dropped in a transaction that is read committed.',
      detail = 'Another does not see what was written last.';
  end if;
  perform tracking.refuse_restored_log();
  lock table tracking.expired in share row exclusive mode; -- no sink is made or rewound meanwhile
  v_looked := pg_current_snapshot();

  for v_old in
    select p.partition, p.since, p.until from tracking.partitions() as p
    where  p.until <= now() - older_than
    order  by p.since
  loop
    v_sinks := array_to_string(tracking.sinks_amid(v_old.partition), ', ');
    if v_sinks <> '' then
      return query
        select v_old.partition::text, false, null::bigint, format('These sinks are not done with it: %s.', v_sinks);
    else
      v_ready := v_ready || tracking.count_partition(v_old.partition);
    end if;
  end loop;
  if v_ready = '[]' then
    return;
  end if;

  lock table only public.events in access exclusive mode;
  for v_old in
    select p.partition, p.since, p.until, r.events, r.last_received_at, r.books
    from   jsonb_to_recordset(v_ready)
             as r (partition regclass, events bigint, last_received_at timestamptz, books jsonb)
    join   tracking.partitions() as p using (partition)
    order  by p.since
  loop
    if tracking.was_written_since(v_old.partition, v_looked) then
      return query select v_old.partition::text, false, null::bigint, 'Events were just written to it.';
      continue;
    end if;
    insert into tracking.expired as x (sink, shard, events)
    select b.sink, b.shard, b.events
    from   jsonb_to_recordset(v_old.books) as b (sink text, shard smallint, events bigint)
    on     conflict on constraint expired_pkey do update set events = x.events + excluded.events;
    insert into tracking.dropped_partitions (partition, since, until, events, last_received_at)
    values (v_old.partition::text, v_old.since, v_old.until, v_old.events, v_old.last_received_at);
    return query select v_old.partition::text, true, v_old.events, null::text;
    execute format('alter table public.events detach partition %s', v_old.partition);
    execute format('drop table %s', v_old.partition);
  end loop;
end $$;
comment on function tracking.drop_partitions is
  'Drops the partitions that are wholly older than a span of time, such as ''13 months'', once every sink is done '
  'with them. Answers for each of those partitions whether it was dropped, how many events went with it, and why it '
  'was not. Errors: 55P03 where somebody is in the way, log_restored.';
revoke execute on function tracking.drop_partitions from public;
grant execute on function tracking.drop_partitions to service_role;

-- The partitions but for the default one, each with the time from which and before which its events happened.
create function tracking.partitions()
  returns table (partition regclass, since timestamptz, until timestamptz)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC' -- others have abbreviations that mean another one
as $$
begin
  return query
    select i.inhrelid::regclass, b.bounds[1]::timestamptz, b.bounds[2]::timestamptz
    from   pg_inherits as i
    join   pg_class as c on c.oid = i.inhrelid
    cross  join lateral regexp_match(
             pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)') as b (bounds)
    where  i.inhparent = 'public.events'::regclass
    and    b.bounds is not null;
end $$;
comment on function tracking.partitions is
  'The partitions of the log, and the times between which their events happened.';
revoke execute on function tracking.partitions from public;

-- The sinks that have events of a partition before them: pending ones, those of a batch that is under way, and those
-- of a later generation of the log.
create function tracking.sinks_amid(partition regclass)
  returns text[]
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sinks text[];
begin
  execute format($query$
    select array_agg(distinct c.sink order by c.sink)
    from   tracking.cursors as c
    cross  join lateral (select count(*)::integer from tracking.cursors as o where o.sink = c.sink) as s (shards)
    where  exists (
      select
      from   %s as e
      where  (e.epoch, e.txid) >= (c.epoch, pg_snapshot_xmin(c.seen))
      and    (e.epoch > c.epoch or not pg_visible_in_snapshot(e.txid, c.seen))
      and    not (e.epoch = c.epoch and c.until is not null and pg_visible_in_snapshot(e.txid, c.until)
                  and (e.txid, e.event_id) <= (c.position_txid, c.position_id))
      and    (s.shards = 1 or tracking.shard_of(e.scope_id, s.shards) = c.shard)
    )
  $query$, partition) into v_sinks;
  return v_sinks;
end $$;
comment on function tracking.sinks_amid is 'The sinks that are not done with a partition, or null.';
revoke execute on function tracking.sinks_amid from public;

-- Counts a partition for the books: {partition, events, last_received_at, books: [{sink, shard, events}]}, where the
-- books have what each shard of a sink had of it since its start.
create function tracking.count_partition(partition regclass)
  returns jsonb
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count jsonb;
  v_books jsonb;
begin
  execute format($query$
    select jsonb_build_object('events', count(*), 'last_received_at', max(e.received_at)) from %s as e
  $query$, partition) into v_count;
  execute format($query$
    select coalesce(jsonb_agg(jsonb_build_object('sink', c.sink, 'shard', c.shard, 'events', n.events)), '[]')
    from   tracking.cursors as c
    cross  join lateral (select count(*)::integer from tracking.cursors as o where o.sink = c.sink) as s (shards)
    cross  join lateral (
      select count(*)
      from   %s as e
      where  (e.epoch > c.start_epoch or e.epoch = c.start_epoch and not pg_visible_in_snapshot(e.txid, c.start_seen))
      and    (s.shards = 1 or tracking.shard_of(e.scope_id, s.shards) = c.shard)
    ) as n (events)
    where  n.events > 0
  $query$, partition) into v_books;
  return v_count || jsonb_build_object('partition', partition::text, 'books', v_books);
end $$;
comment on function tracking.count_partition is 'How many events a partition has, in all and for each shard of a sink.';
revoke execute on function tracking.count_partition from public;

-- True where a partition has events that a snapshot does not see; an index says so, at once.
create function tracking.was_written_since(partition regclass, seen pg_snapshot)
  returns boolean
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off
as $$
declare
  v_was boolean;
begin
  execute format($query$
    select exists (
      select
      from   %s as e
      where  (e.epoch, e.txid) >= (tracking.current_epoch(), pg_snapshot_xmin($1))
      and    not pg_visible_in_snapshot(e.txid, $1))
  $query$, partition) into v_was using seen;
  return v_was;
end $$;
comment on function tracking.was_written_since is 'True where a partition has events that a snapshot does not see.';
revoke execute on function tracking.was_written_since from public;


-- On a schedule -------------------------------------------------------------------------------------
-- Months are made ahead from the first. How long to keep them is the project's to say: it schedules
-- tracking.drop_partitions itself, once a day or so.

select tracking.make_partitions();

do $$
begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    perform cron.schedule('actorscope-make-partitions', '17 * * * *', 'select tracking.make_partitions()');
  end if;
end $$;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
