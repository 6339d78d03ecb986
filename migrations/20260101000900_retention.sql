-- migrate:up

-- Chapter 9: retention.
--
-- The log's months: made ahead, caught up with where events came for a month that had none, and let go when they are
-- old and every sink is done with them. How long that is, a project says for each channel: a month of which all is over
-- is dropped whole, and one of which a part is over is copied without it, beside the log, and the copy put in its place.


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

-- Makes a table for a month's events beside the log, as closed as the log is: "create table … partition of" would lock
-- the whole log instead.
create function tracking.make_month(name text, month timestamp)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('create table %s (like public.events including defaults including constraints)', name);
  execute format('comment on table %s is %L', name, 'Events of ' || to_char(month, 'FMMonth YYYY') || ' (UTC).');
  execute format('alter table %s enable row level security', name);
  execute format('revoke all on %s from anon, authenticated, service_role', name);
end $$;
comment on function tracking.make_month is 'Makes a table for the events of a month, which is no part of the log yet.';
revoke execute on function tracking.make_month from public;

-- Makes one month's partition, fills it from the default partition, and attaches it.
create function tracking.make_partition(month timestamp)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_name text := tracking.partition_of(month);
  v_from timestamptz := month at time zone 'UTC';
  v_to   timestamptz := (month + interval '1 month') at time zone 'UTC';
begin
  perform tracking.make_month(v_name, month);
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



-- How long --------------------------------------------------------------------------------------------

create table tracking.retention (
  channel      text     primary key,
  keep         interval not null,
  export_first boolean  not null default false,
  constraint channel_is_not_blank check (channel ~ '\S'),
  constraint events_are_kept_for_a_while check (keep > '0' and keep <= '1000 years')
);
comment on table tracking.retention is
  'How long events are kept, by channel. A channel that has no row, where there is none for *, is kept for ever.';
comment on column tracking.retention.channel is 'The channel; * stands for all those that have no row of their own.';
comment on column tracking.retention.keep is 'How long a month is kept, from its end on.';
comment on column tracking.retention.export_first is 'True: not before the month has been exported.';
alter table tracking.retention enable row level security;
grant select, insert, update, delete on tracking.retention to service_role;

create table tracking.exports (
  partition   text        not null,
  since       timestamptz not null,
  until       timestamptz not null,
  file        text        not null,
  events      bigint      not null,
  epoch       smallint    not null,
  seen        pg_snapshot not null,
  exported_at timestamptz not null default clock_timestamp(),
  exported_by name        not null default session_user,
  primary key (partition, exported_at)
);
comment on table tracking.exports is 'The months that were exported. What was erased since is still in the files.';
comment on column tracking.exports.since is 'Its events happened from then on,';
comment on column tracking.exports.until is 'and before then.';
comment on column tracking.exports.file is 'Where they went, as whoever exported them calls it.';
comment on column tracking.exports.epoch is 'What the file has of the log: the generation,';
comment on column tracking.exports.seen is 'and the snapshot that was read.';
alter table tracking.exports enable row level security;
grant select on tracking.exports to service_role;

-- Notes that a month was exported: all that a snapshot saw of it.
create function tracking.note_export(month timestamp, file text, events bigint, seen pg_snapshot)
  returns void
  language plpgsql volatile security definer -- the service role may run it, and notes nothing by hand
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform tracking.refuse_restored_log();
  insert into tracking.exports (partition, since, until, file, events, epoch, seen)
  select p.partition::text, p.since, p.until, note_export.file, note_export.events, tracking.current_epoch(),
         note_export.seen
  from   tracking.partitions() as p
  where  p.since = note_export.month at time zone 'UTC';
  if not found then
    raise undefined_object using
      message = format('The log has no month %s.', to_char(month, 'YYYY-MM')),
      hint = 'It was dropped meanwhile, or never was there.';
  end if;
end $$;
comment on function tracking.note_export is
  'Notes that a month was exported to a file, as far as a snapshot of tracking.current_snapshot() saw it. '
  'Errors: 42704 where there is no such month, log_restored.';
revoke execute on function tracking.note_export from public;
grant execute on function tracking.note_export to service_role;

create table tracking.month_channels (
  partition text        primary key,
  channels  text[]      not null,
  epoch     smallint    not null,
  seen      pg_snapshot not null
);
comment on table tracking.month_channels is
  'The channels that months have events of, so that each is read for that once, and anew where it was written to.';
comment on column tracking.month_channels.epoch is 'As of when: the generation of the log,';
comment on column tracking.month_channels.seen is 'and the snapshot that was read.';
alter table tracking.month_channels enable row level security;

create function tracking.channels_of(partition regclass)
  returns text[]
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_seen     constant pg_snapshot := tracking.current_snapshot();
  v_channels text[];
begin
  select m.channels into v_channels
  from   tracking.month_channels as m
  where  m.partition = channels_of.partition::text
  and    m.epoch = tracking.current_epoch()
  and    not tracking.was_written_since(channels_of.partition, m.seen);
  if not found then
    execute format('select array(select e.channel from %s as e group by e.channel order by e.channel)', partition)
    into v_channels;
    insert into tracking.month_channels (partition, channels, epoch, seen)
    values (channels_of.partition::text, v_channels, tracking.current_epoch(), v_seen)
    on     conflict on constraint month_channels_pkey do update
      set (channels, epoch, seen) = (excluded.channels, excluded.epoch, excluded.seen);
  end if;
  return v_channels;
end $$;
comment on function tracking.channels_of is 'The channels that a month has events of.';
revoke execute on function tracking.channels_of from public;

-- What is over: the months that lie wholly before a span of time; or, where none is given, before that of
-- tracking.retention, each with the channels that are over (null: all that it has), and whether one of them is to be
-- exported first. A month without an event is over where every channel would be.
create function tracking.months_over(older_than interval)
  returns table (partition regclass, since timestamptz, until timestamptz, channels text[], export_first boolean)
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select p.partition, p.since, p.until, null::text[], false
    from   tracking.partitions() as p
    where  p.until <= now() - older_than
    order  by p.since;
  return query
    select p.partition, p.since, p.until, case when not w.is_whole then w.channels end, w.export_first
    from   (
      select p.*, tracking.channels_of(p.partition) as channels
      from   tracking.partitions() as p
      where  older_than is null
      and    p.until <= now() - (select min(r.keep) from tracking.retention as r)
      offset 0
    ) as p
    cross  join lateral (
      select array_agg(c.channel order by c.channel) as channels, coalesce(bool_or(k.export_first), false) as export_first,
             count(*) = cardinality(p.channels) and (count(*) > 0 or exists (
               select
               from   tracking.retention as r
               where  p.until <= now() - (select max(m.keep) from tracking.retention as m)
               and    r.channel = '*')) as is_whole
      from   unnest(p.channels) as c (channel)
      cross  join lateral (
        select r.keep, r.export_first
        from   tracking.retention as r
        where  r.channel in (c.channel, '*')
        order  by r.channel = '*'
        limit  1
      ) as k
      where  p.until <= now() - k.keep
    ) as w
    where  w.is_whole or w.channels is not null
    order  by p.since;
end $$;
comment on function tracking.months_over is
  'The months that are older than a span of time, or (null) than tracking.retention has their channels kept.';
revoke execute on function tracking.months_over from public;


-- Months behind -------------------------------------------------------------------------------------

create table tracking.dropped_partitions (
  partition        text        not null,
  channels         text[],
  since            timestamptz not null,
  until            timestamptz not null,
  events           bigint      not null,
  last_received_at timestamptz,
  dropped_at       timestamptz not null default clock_timestamp(),
  primary key (partition, dropped_at)
);
comment on table tracking.dropped_partitions is
  'What tracking.drop_partitions() and tracking.apply_retention() took out of the log: no replay brings it back.';
comment on column tracking.dropped_partitions.channels is 'The channels that went; null: the month as a whole.';
comment on column tracking.dropped_partitions.since is 'Its events happened from then on,';
comment on column tracking.dropped_partitions.until is 'and before then.';
comment on column tracking.dropped_partitions.last_received_at is
  'When the last of them was received; null: there were none.';
alter table tracking.dropped_partitions enable row level security;
grant select on tracking.dropped_partitions to service_role;

-- Drops the partitions that lie wholly in the past before a span of time, such as '13 months', and that every sink
-- is done with: a disabled one, too, and one that has leased a batch. Says of each what became of it. Dead letters
-- are kept, since they are whole without the log.
create function tracking.drop_partitions(older_than interval)
  returns table (partition text, dropped boolean, events bigint, reason text)
  language plpgsql volatile security definer -- the service role may run it, and owns no table
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '100ms'
as $$
begin
  if coalesce(older_than < '0', true) then
    raise invalid_parameter_value using
      message = 'Partitions are dropped that are older than a span of time.',
      hint = 'Keep a year and a month with tracking.drop_partitions(''13 months'').';
  end if;
  return query select g.partition, g.dropped, g.events, g.reason from tracking.let_go(older_than, 1) as g;
end $$;
comment on function tracking.drop_partitions is
  'Drops the partitions that are wholly older than a span of time, such as ''13 months'', once every sink is done '
  'with them. Answers for each of those partitions whether it was dropped, how many events went with it, and why it '
  'was not. Errors: 55P03 where somebody is in the way, log_restored.';
revoke execute on function tracking.drop_partitions from public;
grant execute on function tracking.drop_partitions to service_role;

-- Lets go what tracking.retention says is over, as tracking.drop_partitions does. Where somebody is in the way, it
-- tries again, a second later each time: what it has copied by then would have to be copied anew.
create function tracking.apply_retention(tries integer default 30)
  returns table (partition text, channels text[], dropped boolean, events bigint, reason text)
  language plpgsql volatile security definer -- the service role may run it, and owns no table
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '100ms'
as $$
begin
  return query select g.* from tracking.let_go(null, tries) as g;
end $$;
comment on function tracking.apply_retention is
  'Lets go the months, or the channels of a month (null: all), that are over according to tracking.retention, once '
  'every sink is done with them. Answers for each whether it was dropped, how many events went with it, and why it was '
  'not. Errors: 55P03 where somebody is in the way at each try, log_restored.';
revoke execute on function tracking.apply_retention from public;
grant execute on function tracking.apply_retention to service_role;

create type tracking.departure as (
  partition        text,
  since            timestamptz,
  until            timestamptz,
  channels         text[],
  copy             text,
  events           bigint,
  last_received_at timestamptz,
  books            jsonb
);
comment on type tracking.departure is
  'What is to go: a month, or channels of it, of which the rest is in a copy beside the log; and the counts.';

-- First the months are looked at, counted for the sinks' books, and copied where a part of them stays. That may take a
-- while, and is in nobody's way but of those who would make a sink, rewind one, or erase somebody. Then they go.
create function tracking.let_go(older_than interval, tries integer)
  returns table (partition text, channels text[], dropped boolean, events bigint, reason text)
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_looked pg_snapshot;
  v_month  record;
  v_reason text;
  v_ready  tracking.departure[] := '{}';
  v_gone   tracking.departure[];
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise active_sql_transaction using
      message = 'Partitions are dropped in a transaction that is read committed.',
      detail = 'Another does not see what was written last.';
  end if;
  perform tracking.refuse_restored_log();
  lock table tracking.expired in share row exclusive mode; -- no sink is made or rewound meanwhile, and nobody erased
  v_looked := pg_current_snapshot();

  for v_month in select o.* from tracking.months_over(older_than) as o loop
    v_reason := tracking.why_kept(v_month.partition, v_month.channels, v_month.export_first);
    if v_reason is null then
      v_ready := v_ready || tracking.prepare_departure(v_month.partition, v_month.since, v_month.until, v_month.channels);
    else
      return query select v_month.partition::text, v_month.channels, false, null::bigint, v_reason;
    end if;
  end loop;
  v_gone := tracking.depart(v_ready, v_looked, tries);
  return query
    select r.partition, r.channels, g.events is not null, g.events,
           case when g.events is null then 'Events were just written to it.' end
    from   unnest(v_ready) as r
    left   join unnest(v_gone) as g on g.partition = r.partition
    order  by r.since;
end $$;
comment on function tracking.let_go is
  'Drops what is over, as tracking.drop_partitions and (null) tracking.apply_retention say.';
revoke execute on function tracking.let_go from public;

create function tracking.why_kept(partition regclass, channels text[], export_first boolean)
  returns text
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sinks constant text := array_to_string(tracking.sinks_amid(partition, channels), ', ');
begin
  return case
    when v_sinks <> '' then format('These sinks are not done with it: %s.', v_sinks)
    when export_first and not exists (
      select
      from   tracking.exports as x
      where  x.partition = why_kept.partition::text
      and    x.epoch = tracking.current_epoch()
      and    not tracking.was_written_since(why_kept.partition, x.seen)
    ) then 'It was not exported as it is.'
  end;
end $$;
comment on function tracking.why_kept is 'Why a month, or channels of it, cannot go yet; null where it can.';
revoke execute on function tracking.why_kept from public;

-- Counts what is to go, and copies what stays. Rows are copied as they are, with their transactions' ids; only where
-- the log was restored and that is not said yet would it matter that a copy has another xmin, and then nothing goes.
create function tracking.prepare_departure(partition regclass, since timestamptz, until timestamptz, channels text[])
  returns tracking.departure[]
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_going tracking.departure := tracking.count_partition(partition, channels);
begin
  v_going.since := prepare_departure.since;
  v_going.until := prepare_departure.until;
  if channels is not null then
    if v_going.events = 0 then -- they were erased
      delete from tracking.month_channels as m where m.partition = prepare_departure.partition::text;
      return '{}';
    end if;
    v_going.copy := partition::text || '_kept';
    perform tracking.make_month(v_going.copy, since at time zone 'UTC');
    execute format(
      'insert into %s select * from %s as e where e.channel <> all (%L::text[])', v_going.copy, partition, channels);
    perform tracking.index_like_log(v_going.copy);
    -- So that to attach it takes no look at each row.
    execute format(
      'alter table %s add constraint is_of_the_month check (occurred_at >= %L and occurred_at < %L)',
      v_going.copy, since, until);
    execute format('analyze %s', v_going.copy);
  end if;
  return array[v_going];
end $$;
comment on function tracking.prepare_departure is
  'Counts a month, or channels of it, and copies the rest beside the log. Nothing, where there are no such events.';
revoke execute on function tracking.prepare_departure from public;

-- Gives a table the indexes of the log, when its rows are there already.
create function tracking.index_like_log(name text)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_statement text;
begin
  for v_statement in
    select case
             when k.oid is not null then format('alter table %s add %s', name, pg_get_constraintdef(k.oid))
             else regexp_replace(pg_get_indexdef(i.indexrelid), ' INDEX .* ON ONLY public.events ', format(' INDEX ON %s ', name))
           end
    from   pg_index as i
    left   join pg_constraint as k on k.conindid = i.indexrelid and k.contype in ('p', 'u')
    where  i.indrelid = 'public.events'::regclass
    order  by i.indexrelid
  loop
    execute v_statement;
  end loop;
end $$;
comment on function tracking.index_like_log is 'Makes the indexes on a table that the log has.';
revoke execute on function tracking.index_like_log from public;

-- Takes out of the log what was got ready, but for months that were written to since they were looked at; answers what
-- went. The rollup loses the same hours first, which takes as long as it takes. Then the log is locked, for
-- milliseconds: whoever has written to it and not committed, or reads it, holds a lock on it, and is given way to after
-- a tenth of a second, as in tracking.make_partitions. (Postgres detaches concurrently neither in a function nor from a
-- table that has a default partition.) So nobody can be about to commit an event into a month that goes.
create function tracking.depart(ready tracking.departure[], looked pg_snapshot, tries integer)
  returns tracking.departure[]
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_going tracking.departure;
  v_late  text[];
begin
  while ready <> '{}' loop
    begin
      perform tracking.lock_rollup();
      foreach v_going in array ready loop
        perform tracking.forget_hours(v_going.since, v_going.until, v_going.channels);
      end loop;
      lock table only public.events in access exclusive mode;
      v_late := array(select r.partition from unnest(ready) as r where tracking.was_written_since(r.partition::regclass, looked));
      if v_late <> '{}' then
        raise serialization_failure; -- so that the rollup has their hours again
      end if;
      foreach v_going in array ready loop
        perform tracking.take_out(v_going);
      end loop;
      return ready;
    exception
      when serialization_failure then
        foreach v_going in array ready loop
          if v_going.copy is not null and v_going.partition = any (v_late) then
            execute format('drop table %s', v_going.copy);
          end if;
        end loop;
        ready := array(select r from unnest(ready) as r where r.partition <> all (v_late));
      when lock_not_available then
        tries := tries - 1;
        if tries < 1 then
          raise;
        end if;
        perform pg_sleep(1);
    end;
  end loop;
  return ready;
end $$;
comment on function tracking.depart is 'Takes months, or channels of them, out of the log and the rollup; answers which went.';
revoke execute on function tracking.depart from public;

-- Keeps the rollup as it is until the end of the transaction. Who brings it further takes a second or so.
create function tracking.lock_rollup()
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '10s'
as $$
begin
  perform from tracking.rollup as r for update;
end $$;
comment on function tracking.lock_rollup is 'Has the rollup stay as it is until the end of the transaction.';
revoke execute on function tracking.lock_rollup from public;

-- Takes hours out of the rollup, of channels or all. Where all go, whole days do, which takes a hundredth of the time.
create function tracking.forget_hours(since timestamptz, until timestamptz, channels text[])
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if channels is null then
    perform tracking.forget_days(since, until);
  else
    delete from tracking.activity as a
    using  tracking.kinds as k
    where  k.kind_id = a.kind_id
    and    a.hour >= since
    and    a.hour < until
    and    k.channel = any (channels);
  end if;
end $$;
comment on function tracking.forget_hours is 'Takes hours out of the rollup: of channels, or (null) all.';
revoke execute on function tracking.forget_hours from public;

create function tracking.forget_days(since timestamptz, until timestamptz)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_actors uuid[];
  v_orgs   uuid[];
begin
  perform set_config('actorscope.days_follow', 'off', true);
  with gone as (
    delete from tracking.activity as a
    using  tracking.kinds as k
    where  k.kind_id = a.kind_id
    and    a.hour >= since
    and    a.hour < until
    returning a.actor_id, k.org_id
  )
  select array_agg(distinct g.actor_id), array_agg(distinct g.org_id) into v_actors, v_orgs from gone as g;
  perform set_config('actorscope.days_follow', 'on', true);
  delete from tracking.days as d
  where  d.day >= (since at time zone 'UTC')::date
  and    d.day < (until at time zone 'UTC')::date;
  perform tracking.recount_surfaces();
  perform tracking.forget_members(v_actors, v_orgs, '{}');
end $$;
comment on function tracking.forget_days is 'Takes whole days out of the rollup, with whoever was there on no other.';
revoke execute on function tracking.forget_days from public;

-- Takes a month, or channels of it, out of the log, which is locked; and notes what the books have to know.
create function tracking.take_out(going tracking.departure)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into tracking.expired as x (sink, shard, events)
  select b.sink, b.shard, b.events
  from   jsonb_to_recordset(going.books) as b (sink text, shard smallint, events bigint)
  on     conflict on constraint expired_pkey do update set events = x.events + excluded.events;
  insert into tracking.dropped_partitions (partition, channels, since, until, events, last_received_at)
  values (going.partition, going.channels, going.since, going.until, going.events, going.last_received_at);
  delete from tracking.month_channels as m where m.partition = going.partition;

  execute format('alter table public.events detach partition %s', going.partition);
  if going.copy is null then
    execute format('drop table %s', going.partition);
  else
    perform tracking.put_in_place(going.partition, going.copy, going.since, going.until);
  end if;
end $$;
comment on function tracking.take_out is 'Takes a month, or channels of it, out of the log, and notes how many events went.';
revoke execute on function tracking.take_out from public;

create function tracking.put_in_place(partition text, copy text, since timestamptz, until timestamptz)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  execute format('drop table %s', partition);
  execute format('alter table %s rename to %I', copy, (parse_ident(partition))[2]);
  execute format('alter table public.events attach partition %s for values from (%L) to (%L)', partition, since, until);
  execute format('alter table %s drop constraint is_of_the_month', partition);
end $$;
comment on function tracking.put_in_place is 'Puts the copy of a month in its place, in the log.';
revoke execute on function tracking.put_in_place from public;

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

-- The sinks that have events of a partition before them, or of channels of it: pending ones, those of a batch that is
-- under way, and those of a later generation of the log.
create function tracking.sinks_amid(partition regclass, channels text[] default null)
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
      and    %s
    )
  $query$, partition, tracking.is_of('e', channels)) into v_sinks;
  return v_sinks;
end $$;
comment on function tracking.sinks_amid is 'The sinks that are not done with a partition, or channels of it; or null.';
revoke execute on function tracking.sinks_amid from public;

-- Counts a partition, or channels of it, for the books, which have what each shard of a sink had of it since its start:
-- [{sink, shard, events}].
create function tracking.count_partition(partition regclass, channels text[] default null)
  returns tracking.departure
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_of constant text := tracking.is_of('e', channels);
  v_count tracking.departure;
begin
  execute format('select count(*) as events, max(e.received_at) as last_received_at from %s as e where %s', partition, v_is_of)
  into v_count.events, v_count.last_received_at;
  execute format($query$
    select coalesce(jsonb_agg(jsonb_build_object('sink', c.sink, 'shard', c.shard, 'events', n.events)), '[]')
    from   tracking.cursors as c
    cross  join lateral (select count(*)::integer from tracking.cursors as o where o.sink = c.sink) as s (shards)
    cross  join lateral (
      select count(*)
      from   %s as e
      where  (e.epoch > c.start_epoch or e.epoch = c.start_epoch and not pg_visible_in_snapshot(e.txid, c.start_seen))
      and    (s.shards = 1 or (uuid_hash(e.scope_id) & 2147483647) %% s.shards = c.shard) -- tracking.shard_of, without a call
      and    %s
    ) as n (events)
    where  n.events > 0
  $query$, partition, v_is_of) into v_count.books;
  v_count.partition := count_partition.partition::text;
  v_count.channels := count_partition.channels;
  return v_count;
end $$;
comment on function tracking.count_partition is
  'How many events a partition has, or channels of it, in all and for each shard of a sink.';
revoke execute on function tracking.count_partition from public;

-- A condition on an event's channel, as SQL; true where there are no channels given.
create function tracking.is_of(event text, channels text[])
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case when channels is null then 'true' else format('%I.channel = any (%L::text[])', event, channels) end;
end $$;
comment on function tracking.is_of is 'The condition that an event is of some channels, as SQL.';
revoke execute on function tracking.is_of from public;

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
-- Months are made ahead from the first. How long to keep them is the project's to say, in tracking.retention.

select tracking.make_partitions();

do $$
begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    perform cron.schedule('actorscope-make-partitions', '17 * * * *', 'select tracking.make_partitions()');
    perform cron.schedule('actorscope-apply-retention', '47 * * * *', 'select tracking.apply_retention()');
  end if;
end $$;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
