-- migrate:up

-- Chapter 7: delivery.
--
-- Whatever happens with events elsewhere reads the log; nothing is written twice, and a request waits for
-- nobody. A sink is somewhere that events go. Where it stands in the log is a cursor, which is a snapshot:
--
--        seen                          until              now
--   ──────┼──────────── position ────────┼─────────────────┼──▶
--     delivered        ▲ here        to be read       not yet looked at
--
-- What `until` sees and `seen` did not is next, in the order (txid, event_id), a batch at a time. So a commit
-- is never skipped, however late it comes, and a transaction that stays open delays nothing but its own
-- events. Whoever delivers leases a batch, and holds neither lock nor transaction meanwhile:
--
--   lease_batch       hands a worker the next events of a sink; nobody else gets them until the lease ends
--   lease_ahead       hands it the batch after that one, to be got ready while that one is sent
--   extend_lease      makes the lease longer, or ends it
--   advance_batch     moves the cursor past the first events of the batch
--   complete_batch    moves it past all; events that the sink refuses for good are kept as undelivered
--   fail_batch        leaves it where it is, and says when to try again
--
-- A sink may have several shards, each with a cursor of its own and the scopes that fall to it: workers share
-- its work, and the events of one org keep their order.


-- Sinks ---------------------------------------------------------------------------------------------

create table tracking.sinks (
  name       text        primary key,
  kind       text        not null,
  settings   jsonb       not null default '{}',
  events     text[],
  channels   text[],
  orgs       uuid[],
  max_age    interval,
  enabled    boolean     not null default true,
  created_at timestamptz not null default now(),
  constraint name_is_lower_case check (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
  constraint kind_is_known check (kind in ('posthog', 'logsnag', 'bento', 'webhook', 'ndjson')),
  constraint settings_are_an_object check (jsonb_typeof(settings) = 'object'),
  constraint max_age_is_positive check (max_age > '0'),
  constraint settings_hold_no_secret check (
    not settings::text ~* '"[^"]*(secret|token|password|api[_ -]?key|authorization)[^"]*"\s*:')
);
comment on table tracking.sinks is 'Where events are delivered to.';
comment on column tracking.sinks.name is 'Names the sink; secrets are looked up by it, outside this table.';
comment on column tracking.sinks.kind is 'What speaks to it: posthog, logsnag, bento, webhook or ndjson.';
comment on column tracking.sinks.settings is 'What that needs to know, such as a host; never a secret.';
comment on column tracking.sinks.events is
  'Names of the events it wants (a * at the end stands for anything); null: all.';
comment on column tracking.sinks.channels is 'Channels it wants; null: all.';
comment on column tracking.sinks.orgs is
  'Organizations whose events it wants; null: all, and those of no organization.';
comment on column tracking.sinks.max_age is
  'How old an event it wants was at most when it was received: keeps imported history out; null: however old.';
comment on column tracking.sinks.enabled is 'False: nothing is delivered, and all of it waits.';
alter table tracking.sinks enable row level security;
grant select, update (settings, events, channels, orgs, max_age, enabled), delete on tracking.sinks to service_role;

-- Workers listen on the channel tracking_sinks, and look at the sinks again when something comes.
create function tracking.announce_sinks()
  returns trigger
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_notify('tracking_sinks', '');
  return null;
end $$;
comment on function tracking.announce_sinks is 'Tells workers that sinks have changed.';
revoke execute on function tracking.announce_sinks from public;
create trigger changed_sinks_are_announced after insert or update or delete on tracking.sinks
  for each statement execute function tracking.announce_sinks();

create table tracking.cursors (
  sink            text        not null references tracking.sinks (name) on update cascade on delete cascade,
  shard           smallint    not null,
  start_epoch     smallint    not null,
  start_seen      pg_snapshot not null,
  epoch           smallint    not null,
  seen            pg_snapshot not null,
  until           pg_snapshot,
  position_txid   xid8        not null default '0',
  position_id     uuid        not null default '00000000-0000-0000-0000-000000000000',
  lease           uuid,
  worker          text,
  leased_until    timestamptz,
  worked_at       timestamptz,
  batch_txid      xid8,
  batch_id        uuid,
  batch_wanted    integer,
  batch_others    integer,
  ahead_lease     uuid,
  ahead_txid      xid8,
  ahead_id        uuid,
  ahead_wanted    integer,
  ahead_others    integer,
  failures        integer     not null default 0,
  retry_at        timestamptz,
  last_error      text,
  delivered       bigint      not null default 0,
  filtered        bigint      not null default 0,
  undelivered     bigint      not null default 0,
  dropped         bigint      not null default 0,
  events_a_second real,
  primary key (sink, shard)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table tracking.cursors is 'Where each shard of a sink stands in the log, and who is at work on it.';
comment on column tracking.cursors.start_epoch is 'Where it began, or was rewound to: the generation of the log,';
comment on column tracking.cursors.start_seen is 'and the snapshot whose transactions are none of its business.';
comment on column tracking.cursors.epoch is 'The generation of the log that it reads.';
comment on column tracking.cursors.seen is 'The snapshot whose transactions it is done with.';
comment on column tracking.cursors.until is 'The snapshot up to which it reads; null: the next lease takes a new one.';
comment on column tracking.cursors.position_txid is
  'The last event between the two that it is done with: its transaction,';
comment on column tracking.cursors.position_id is 'and its id.';
comment on column tracking.cursors.lease is 'Names the batch that is under way.';
comment on column tracking.cursors.worker is 'Who holds the lease, or held it last.';
comment on column tracking.cursors.leased_until is 'When the lease ends by itself.';
comment on column tracking.cursors.worked_at is 'When it was last leased: shards take turns.';
comment on column tracking.cursors.batch_txid is 'The last event of the batch: its transaction,';
comment on column tracking.cursors.batch_id is 'and its id.';
comment on column tracking.cursors.batch_wanted is 'Events of the batch that the sink wants.';
comment on column tracking.cursors.batch_others is 'Events between them that it does not want.';
comment on column tracking.cursors.ahead_lease is
  'The same of the batch after it, which becomes the batch when that is complete: its lease,';
comment on column tracking.cursors.ahead_txid is 'its last event''s transaction,';
comment on column tracking.cursors.ahead_id is 'and id,';
comment on column tracking.cursors.ahead_wanted is 'its events that the sink wants,';
comment on column tracking.cursors.ahead_others is 'and those that it does not.';
comment on column tracking.cursors.failures is 'Failures in a row.';
comment on column tracking.cursors.retry_at is 'Not to be tried before then.';
comment on column tracking.cursors.last_error is 'What the last failure said; kept until a batch is complete.';
comment on column tracking.cursors.delivered is 'Events delivered since the start.';
comment on column tracking.cursors.filtered is 'Events since the start that the sink does not want.';
comment on column tracking.cursors.undelivered is
  'Events since the start that the sink refused for good, and that wait in tracking.undelivered.';
comment on column tracking.cursors.dropped is 'Events since the start that somebody took out of there and gave up.';
comment on column tracking.cursors.events_a_second is 'How fast the last batch of a hundred or more was delivered.';
alter table tracking.cursors enable row level security;
grant select on tracking.cursors to service_role;

create table tracking.undelivered (
  sink      text        not null references tracking.sinks (name) on update cascade on delete cascade,
  scope_id  uuid        not null,
  event_id  uuid        not null,
  shard     smallint    not null,
  epoch     smallint    not null,
  txid      xid8        not null,
  event     jsonb       not null,
  error     text        not null,
  failed_at timestamptz not null default clock_timestamp(),
  tries     integer     not null default 1,
  primary key (sink, scope_id, event_id)
);
comment on table tracking.undelivered is
  'The dead letters of sinks: events that a sink refused for good, whole, until somebody retries or drops them.';
comment on column tracking.undelivered.sink is 'The sink that refused it.';
comment on column tracking.undelivered.epoch is 'Its place in the log: the generation,';
comment on column tracking.undelivered.txid is 'and the transaction.';
comment on column tracking.undelivered.event is 'The row of public.events.';
comment on column tracking.undelivered.error is 'What the sink answered.';
comment on column tracking.undelivered.failed_at is 'When it last failed.';
comment on column tracking.undelivered.tries is 'How often it was refused.';
alter table tracking.undelivered enable row level security;
grant select on tracking.undelivered to service_role;

-- Apart from the cursors, which workers hold locked while they read the log: who drops a part of the log waits for
-- nobody who waits for it.
create table tracking.expired (
  sink   text     not null references tracking.sinks (name) on update cascade on delete cascade,
  shard  smallint not null,
  events bigint   not null,
  primary key (sink, shard)
);
comment on table tracking.expired is
  'How many events since the start of each shard of a sink went with partitions that were dropped: its books still '
  'have them.';
alter table tracking.expired enable row level security;
grant select on tracking.expired to service_role;


-- Makes a sink and its cursors. It starts with what is committed from now on, or with the log's beginning.
create function tracking.create_sink(
  name text, kind text, settings jsonb default '{}', from_beginning boolean default false, shards integer default 1,
  events text[] default null, channels text[] default null, orgs uuid[] default null, max_age interval default null)
  returns tracking.sinks
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sink tracking.sinks;
begin
  perform tracking.refuse_restored_log();
  lock table tracking.expired in row exclusive mode; -- no partition is dropped that this sink is to have
  if shards is null or shards not between 1 and 64 then
    raise invalid_parameter_value using
      message = format('A sink has 1 to 64 shards, not %s.', coalesce(shards::text, 'null')),
      hint = 'One is enough for 20,000 events a second.';
  end if;
  insert into tracking.sinks (name, kind, settings, events, channels, orgs, max_age)
  values (
    create_sink.name, create_sink.kind, create_sink.settings,
    create_sink.events, create_sink.channels, create_sink.orgs, create_sink.max_age)
  returning * into v_sink;
  insert into tracking.cursors (sink, shard, start_epoch, start_seen, epoch, seen)
  select v_sink.name, s.shard, p.epoch, p.seen, p.epoch, p.seen
  from   generate_series(0, shards - 1) as s (shard), (
    select case when from_beginning then 1 else tracking.current_epoch() end,
           case when from_beginning then '1:1:' else tracking.current_snapshot() end
  ) as p (epoch, seen);
  return v_sink;
end $$;
comment on function tracking.create_sink is
  'Makes a sink that starts now, or with the log''s beginning; shards are how many batches of it may be under way at '
  'once.';
revoke execute on function tracking.create_sink from public;
grant execute on function tracking.create_sink to service_role;


-- Reading the log -----------------------------------------------------------------------------------

-- True where a sink wants an event, which was of some age when it was received: that is the same at every try.
create function tracking.wants(sink tracking.sinks, event text, channel text, org_id uuid, age interval)
  returns boolean
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (sink.channels is null or wants.channel = any (sink.channels))
    and (sink.orgs is null or coalesce(wants.org_id = any (sink.orgs), false))
    and (sink.max_age is null or age <= sink.max_age)
    and (sink.events is null or exists (
      select
      from   unnest(sink.events) as p (pattern)
      where  wants.event = p.pattern
      or     right(p.pattern, 1) = '*' and starts_with(wants.event, left(p.pattern, -1))));
end $$;
comment on function tracking.wants is 'True where the sink''s filters let an event through.';
revoke execute on function tracking.wants from public;

-- True in a log that was restored from a dump into another cluster: the transaction that wrote the row of
-- tracking.log is known to have been another here, or a cursor has seen transactions that are yet to come.
create function tracking.is_restored()
  returns boolean
  language plpgsql stable security definer -- the service role may ask, and reads no tracking.log
  set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from tracking.log as l where l.xmin <> l.written_by)
    or exists (
      select
      from   tracking.cursors as c
      join   tracking.log as l on l.epoch = c.epoch
      where  pg_snapshot_xmax(coalesce(c.until, c.seen)) > pg_snapshot_xmax(pg_current_snapshot()));
end $$;
comment on function tracking.is_restored is
  'True where the log comes from another cluster, and tracking.raise_epoch() is due.';
revoke execute on function tracking.is_restored from public;
grant execute on function tracking.is_restored to service_role;

-- Refuses to read on in a restored log before that is said: what is written here would be skipped.
create function tracking.refuse_restored_log()
  returns void
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tracking.is_restored() then
    raise object_not_in_prerequisite_state using
      message = 'log_restored',
      detail = 'The log was restored from a dump into another cluster, where the ids of transactions start over.',
      hint = 'Run tracking.raise_epoch once: nothing is skipped and nothing sent twice.';
  end if;
end $$;
comment on function tracking.refuse_restored_log is 'Raises log_restored (55000) where tracking.raise_epoch() is due.';
revoke execute on function tracking.refuse_restored_log from public;

-- True where the log has had hundreds of events, of whatever shard, since the snapshot that a cursor has seen.
create function tracking.is_far_behind(cursor tracking.cursors)
  returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off
as $$
begin
  return (
    select count(*)
    from   (
      select
      from   public.events as e
      where  (e.epoch, e.txid) >= (cursor.epoch, pg_snapshot_xmax(cursor.seen))
      limit  500
    ) as n
  ) = 500;
end $$;
comment on function tracking.is_far_behind is 'True where there are hundreds of events that a cursor has not seen.';
revoke execute on function tracking.is_far_behind from public;

-- A batch as a worker gets it.
create type tracking.batch as (
  sink     text,
  kind     text,
  settings jsonb,
  shard    integer,
  lease    uuid,
  failures integer,
  more     boolean,
  events   json
);
comment on type tracking.batch is 'Events of a sink that are leased to a worker.';
comment on column tracking.batch.lease is 'Names the batch.';
comment on column tracking.batch.failures is 'How often it failed before, in a row.';
comment on column tracking.batch.more is 'Whether there may be another behind it.';
comment on column tracking.batch.events is
  'Rows of public.events, in order, each on a line of its own: a worker may hand them on without reading them.';

-- Reads a batch: the events in it that the sink wants, as JSON; how many those are, and how many there are in
-- all; and the place of the last.
create function tracking.read_batch(
  sink tracking.sinks, cursor tracking.cursors, until pg_snapshot, after_txid xid8, after_id uuid, size integer,
  out events json, out wanted integer, out total integer, out last_txid xid8, out last_id uuid)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_wants_all constant boolean := num_nonnulls(sink.events, sink.channels, sink.orgs, sink.max_age) = 0;
  v_shards    constant integer := (select count(*) from tracking.cursors as c where c.sink = cursor.sink);
  v_txids     xid8[];
  v_ids       uuid[];
begin
  select coalesce(json_agg(n.e) filter (where n.is_wanted), '[]'), count(*) filter (where n.is_wanted), count(*),
         array_agg((n.e).txid), array_agg((n.e).event_id)
  into   read_batch.events, wanted, total, v_txids, v_ids
  from   (
    select e, v_wants_all or tracking.wants(sink, e.event, e.channel, e.org_id, e.received_at - e.occurred_at) as is_wanted
    from   tracking.next_events(
             cursor.epoch, cursor.seen, read_batch.until, after_txid, after_id, size, cursor.shard, v_shards) as e
    offset 0
  ) as n;
  last_txid := v_txids[total];
  last_id := v_ids[total];
end $$;
comment on function tracking.read_batch is 'Reads the events after a place up to a snapshot, for a shard of a sink.';
revoke execute on function tracking.read_batch from public;

-- Hands a worker the next batch of a sink; no row where there is nothing to do: all is delivered, leased to others, or
-- waits to be tried again. Of many events that the sink does not want, it passes over some at a time: a batch may have
-- no events, and is to be completed like any other.
create function tracking.lease_batch(sink text, worker text, size integer default 500, seconds integer default 60)
  returns setof tracking.batch
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch  smallint;
  v_sink   tracking.sinks;
  v_shards integer;
  v_cursor tracking.cursors;
  v_until  pg_snapshot;
  v_batch  record;
  v_passed integer := 0;
  v_idle   smallint[] := '{}';
begin
  if size is null or size not between 1 and 10000 or seconds is null or seconds not between 1 and 3600 then
    raise invalid_parameter_value using message = 'A batch has 1 to 10000 events, and a lease 1 to 3600 seconds.';
  end if;
  select s.* into v_sink from tracking.sinks as s where s.name = lease_batch.sink;
  if not found then
    perform tracking.raise_no_sink(lease_batch.sink);
  elsif not v_sink.enabled then
    return;
  end if;
  perform tracking.refuse_restored_log();
  v_epoch := tracking.current_epoch();
  select count(*) into v_shards from tracking.cursors as c where c.sink = v_sink.name;

  <<shards>>
  loop
    -- Looked at first, and locked only where there is something: a lock takes a transaction id, and is written. A shard
    -- that has nothing moves on all the same when others have had much since: looking past it all takes its time.
    select c.* into v_cursor
    from   tracking.cursors as c
    where  c.sink = v_sink.name
    and    c.shard <> all (v_idle)
    and    coalesce(c.leased_until <= clock_timestamp(), true)
    and    coalesce(c.retry_at <= clock_timestamp(), true)
    order  by c.worked_at nulls first
    limit  1;
    if not found then
      return;
    end if;
    v_idle := v_idle || v_cursor.shard;
    continue when v_cursor.epoch = v_epoch and v_cursor.until is null
      and not (v_shards > 1 and tracking.is_far_behind(v_cursor))
      and not exists (
        select
        from   tracking.next_events(
                 v_epoch, v_cursor.seen, tracking.current_snapshot(),
                 v_cursor.position_txid, v_cursor.position_id, 1, v_cursor.shard, v_shards));
    select c.* into v_cursor
    from   tracking.cursors as c
    where  (c.sink, c.shard) = (v_sink.name, v_cursor.shard)
    and    coalesce(c.leased_until <= clock_timestamp(), true)
    and    coalesce(c.retry_at <= clock_timestamp(), true)
    for    update skip locked;
    continue when not found;

    -- Where a snapshot is read to its end, or a generation of the log, there may be more behind it.
    <<batches>>
    loop
      v_until := v_cursor.until;
      if v_until is null and v_cursor.epoch = v_epoch then
        v_until := tracking.current_snapshot();
      end if;
      v_batch := tracking.read_batch(v_sink, v_cursor, v_until, v_cursor.position_txid, v_cursor.position_id, size);
      if v_batch.total > 0 then
        exit shards when v_batch.wanted > 0 or v_passed >= 20;
        v_passed := v_passed + 1;
        v_cursor := tracking.move_cursor(
          v_cursor, v_cursor.epoch, v_cursor.seen, v_until, v_batch.last_txid, v_batch.last_id, v_batch.total);
      elsif v_cursor.until is not null then
        v_cursor := tracking.move_cursor(v_cursor, v_cursor.epoch, v_cursor.until);
      elsif v_cursor.epoch < v_epoch then
        v_cursor := tracking.move_cursor(v_cursor, (v_cursor.epoch + 1)::smallint, '1:1:');
      else
        if v_shards > 1 then
          v_cursor := tracking.move_cursor(v_cursor, v_epoch, v_until);
        end if;
        exit batches;
      end if;
    end loop;
  end loop;

  update tracking.cursors as c
  set    until = v_until,
         lease = gen_random_uuid(),
         worker = lease_batch.worker,
         leased_until = clock_timestamp() + make_interval(secs => seconds),
         worked_at = clock_timestamp(),
         (batch_txid, batch_id, batch_wanted, batch_others) =
           (v_batch.last_txid, v_batch.last_id, v_batch.wanted, v_batch.total - v_batch.wanted),
         (ahead_lease, ahead_txid, ahead_id, ahead_wanted, ahead_others) = (null, null, null, null, null)
  where  (c.sink, c.shard) = (v_cursor.sink, v_cursor.shard)
  returning c.* into v_cursor;
  return query select
    v_sink.name, v_sink.kind, v_sink.settings, v_cursor.shard::integer, v_cursor.lease, v_cursor.failures,
    v_batch.total >= size, v_batch.events;
end $$;
comment on function tracking.lease_batch is
  'Leases the next batch of a sink to a worker for so many seconds; no row where there is nothing to do. Errors: 42704 '
  'for an unknown sink, log_restored.';
revoke execute on function tracking.lease_batch from public;
grant execute on function tracking.lease_batch to service_role;

-- Hands a worker the batch after the one that it has, so that it can be got ready meanwhile. It has a lease of its own,
-- which begins when that one is complete; where that one fails, there was never another. No row where there is nothing
-- more as yet, or the lease is not the worker's any more.
create function tracking.lease_ahead(sink text, shard integer, lease uuid, size integer default 500)
  returns setof tracking.batch
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sink   tracking.sinks;
  v_cursor tracking.cursors;
  v_batch  record;
begin
  if size is null or size not between 1 and 10000 then
    raise invalid_parameter_value using message = 'A batch has 1 to 10000 events.';
  end if;
  select c.* into v_cursor
  from   tracking.cursors as c
  where  c.sink = lease_ahead.sink
  and    c.shard = lease_ahead.shard
  and    c.lease = lease_ahead.lease
  for    update;
  select s.* into v_sink from tracking.sinks as s where s.name = v_cursor.sink;
  if not coalesce(v_sink.enabled, false) then
    return;
  end if;
  v_batch := tracking.read_batch(v_sink, v_cursor, v_cursor.until, v_cursor.batch_txid, v_cursor.batch_id, size);
  if v_batch.total = 0 then
    return;
  end if;
  update tracking.cursors as c
  set    (ahead_lease, ahead_txid, ahead_id, ahead_wanted, ahead_others) =
           (gen_random_uuid(), v_batch.last_txid, v_batch.last_id, v_batch.wanted, v_batch.total - v_batch.wanted)
  where  (c.sink, c.shard) = (v_cursor.sink, v_cursor.shard)
  returning c.* into v_cursor;
  return query select
    v_sink.name, v_sink.kind, v_sink.settings, v_cursor.shard::integer, v_cursor.ahead_lease, v_cursor.failures,
    v_batch.total >= size, v_batch.events;
end $$;
comment on function tracking.lease_ahead is
  'Hands a worker the batch after the one it has leased: its lease begins when that one is complete. No row where there '
  'is no more, or the lease had passed to somebody else.';
revoke execute on function tracking.lease_ahead from public;
grant execute on function tracking.lease_ahead to service_role;

-- Moves a cursor to where a snapshot begins, or to a position behind that, past events that the sink does not want.
create function tracking.move_cursor(
  cursor tracking.cursors, epoch smallint, seen pg_snapshot, until pg_snapshot default null,
  position_txid xid8 default '0', position_id uuid default '00000000-0000-0000-0000-000000000000',
  passed integer default 0)
  returns tracking.cursors
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update tracking.cursors as c
  set    epoch = move_cursor.epoch, seen = move_cursor.seen, until = move_cursor.until,
         position_txid = move_cursor.position_txid, position_id = move_cursor.position_id,
         filtered = c.filtered + passed
  where  (c.sink, c.shard) = (cursor.sink, cursor.shard)
  returning c.* into cursor;
  return cursor;
end $$;
comment on function tracking.move_cursor is 'Puts a cursor somewhere else.';
revoke execute on function tracking.move_cursor from public;

create function tracking.raise_no_sink(sink text)
  returns void
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  raise undefined_object using message = format('There is no sink %L.', sink), hint = 'tracking.create_sink makes one.';
end $$;
comment on function tracking.raise_no_sink is 'Raises 42704 for a sink that is not there.';
revoke execute on function tracking.raise_no_sink from public;

-- Makes a lease last so many seconds from now on; 0 ends it, and somebody else may take the batch.
-- False where the lease was not the worker's any more.
create function tracking.extend_lease(sink text, shard integer, lease uuid, seconds integer)
  returns boolean
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
begin
  if seconds is null or seconds not between 0 and 3600 then
    raise invalid_parameter_value using message = 'A lease has up to 3600 seconds.';
  end if;
  update tracking.cursors as c
  set    leased_until = clock_timestamp() + make_interval(secs => seconds)
  where  c.sink = extend_lease.sink
  and    c.shard = extend_lease.shard
  and    c.lease = extend_lease.lease;
  return found;
end $$;
comment on function tracking.extend_lease is
  'Makes a lease last so many seconds from now on; 0 ends it. False where it had passed to somebody else.';
revoke execute on function tracking.extend_lease from public;
grant execute on function tracking.extend_lease to service_role;

-- Says that the first events of a batch were delivered, up to one by its place (txid, event_id), but for those
-- that the sink refused for good. The rest stays leased. False where the lease was not the worker's any more. May be
-- asked again, where the answer was lost.
create function tracking.advance_batch(
  sink text, shard integer, lease uuid, events integer, txid xid8, event_id uuid, undelivered jsonb default '[]')
  returns boolean
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_refused constant integer := jsonb_array_length(advance_batch.undelivered);
  v_cursor  tracking.cursors;
  v_others  integer;
begin
  select c.* into v_cursor
  from   tracking.cursors as c
  where  c.sink = advance_batch.sink
  and    c.shard = advance_batch.shard
  and    c.lease = advance_batch.lease
  for    update;
  if not found then
    return false;
  elsif (v_cursor.position_txid, v_cursor.position_id) = (advance_batch.txid, advance_batch.event_id) then
    return true; -- the worker asks again, since the answer was lost
  end if;
  select count(*) - advance_batch.events into v_others
  from   tracking.next_events(
           v_cursor.epoch, v_cursor.seen, v_cursor.until, v_cursor.position_txid, v_cursor.position_id,
           v_cursor.batch_wanted + v_cursor.batch_others, v_cursor.shard,
           (select count(*)::integer from tracking.cursors as c where c.sink = advance_batch.sink)) as e
  where  (e.txid, e.event_id) <= (advance_batch.txid, advance_batch.event_id);
  if not coalesce(
    advance_batch.events between v_refused and v_cursor.batch_wanted
    and v_others between 0 and v_cursor.batch_others
    and (advance_batch.txid, advance_batch.event_id) > (v_cursor.position_txid, v_cursor.position_id)
    and (advance_batch.txid, advance_batch.event_id) <= (v_cursor.batch_txid, v_cursor.batch_id), false)
  then
    raise invalid_parameter_value using message = 'That is not how the batch begins.';
  end if;
  update tracking.cursors as c
  set    position_txid = advance_batch.txid,
         position_id = advance_batch.event_id,
         delivered = c.delivered + advance_batch.events - v_refused,
         filtered = c.filtered + v_others,
         undelivered = c.undelivered + v_refused,
         batch_wanted = c.batch_wanted - advance_batch.events,
         batch_others = c.batch_others - v_others,
         worked_at = clock_timestamp(),
         failures = 0, retry_at = null, last_error = null
  where  (c.sink, c.shard) = (v_cursor.sink, v_cursor.shard);
  perform tracking.keep_undelivered(advance_batch.sink, advance_batch.shard, advance_batch.undelivered);
  return true;
end $$;
comment on function tracking.advance_batch is
  'Says that so many events at the beginning of a batch were delivered, up to a place, but for the events given, '
  '[{event, error}], which are kept. The rest stays leased. False where the lease had passed to somebody else.';
revoke execute on function tracking.advance_batch from public;
grant execute on function tracking.advance_batch to service_role;

-- Says that a batch was delivered, but for the events that the sink refused for good: {"event": row, "error": text}
-- each, which are kept. Where the worker has leased ahead, it has that batch now. False where the lease was not the
-- worker's any more: somebody else has the batch.
create function tracking.complete_batch(sink text, shard integer, lease uuid, undelivered jsonb default '[]')
  returns boolean
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_refused constant integer := jsonb_array_length(complete_batch.undelivered);
begin
  update tracking.cursors as c
  set    position_txid = c.batch_txid,
         position_id = c.batch_id,
         delivered = c.delivered + c.batch_wanted - v_refused,
         filtered = c.filtered + c.batch_others,
         undelivered = c.undelivered + v_refused,
         events_a_second = case
           when c.batch_wanted < 100 then c.events_a_second
           else c.batch_wanted / greatest(date_part('epoch', clock_timestamp() - c.worked_at), 0.001)
         end,
         lease = c.ahead_lease,
         leased_until = case when c.ahead_lease is not null then c.leased_until end,
         worked_at = case when c.ahead_lease is not null then clock_timestamp() else c.worked_at end,
         (batch_txid, batch_id, batch_wanted, batch_others) =
           (c.ahead_txid, c.ahead_id, c.ahead_wanted, c.ahead_others),
         (ahead_lease, ahead_txid, ahead_id, ahead_wanted, ahead_others) = (null, null, null, null, null),
         failures = 0, retry_at = null, last_error = null
  where  c.sink = complete_batch.sink
  and    c.shard = complete_batch.shard
  and    c.lease = complete_batch.lease;
  if not found then
    return false;
  end if;
  perform tracking.keep_undelivered(complete_batch.sink, complete_batch.shard, complete_batch.undelivered);
  return true;
end $$;
comment on function tracking.complete_batch is
  'Ends a lease: the batch is delivered, but for the events given, [{event, error}], which are kept in '
  'tracking.undelivered. False where the lease had passed to somebody else.';
revoke execute on function tracking.complete_batch from public;
grant execute on function tracking.complete_batch to service_role;

-- Keeps events that a sink refused, as they are in the log: what went through a worker may have lost digits.
create function tracking.keep_undelivered(sink text, shard integer, events jsonb)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_kept integer;
begin
  if events = '[]' then
    return;
  end if;
  insert into tracking.undelivered as u (sink, shard, scope_id, event_id, epoch, txid, event, error)
  select keep_undelivered.sink, keep_undelivered.shard,
         e.scope_id, e.event_id, e.epoch, e.txid, to_jsonb(e), left(r.error, 1000)
  from   jsonb_to_recordset(events) as r (event jsonb, error text)
  cross  join lateral jsonb_to_record(r.event) as i (scope_id uuid, event_id uuid)
  join   public.events as e
  on     (e.scope_id, e.occurred_at, e.event_id) = (i.scope_id, tracking.event_time(i.event_id), i.event_id)
  on     conflict on constraint undelivered_pkey do update
    set error = excluded.error, failed_at = excluded.failed_at, tries = u.tries + 1;
  get diagnostics v_kept = row_count;
  if v_kept <> jsonb_array_length(events) then
    raise no_data_found using message = 'An event that was refused is not in the log.';
  end if;
end $$;
comment on function tracking.keep_undelivered is 'Keeps events that a sink refused for good: [{event, error}].';
revoke execute on function tracking.keep_undelivered from public;

-- Says that a batch was not delivered. It is tried again, first of all, after a pause of full jitter that
-- doubles with each failure up to five minutes; or after what the sink asked for, where that is longer, and at
-- most a day.
create function tracking.fail_batch(sink text, shard integer, lease uuid, error text, retry_after interval default '0')
  returns timestamptz
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_retry_at timestamptz;
begin
  update tracking.cursors as c
  set    lease = null, leased_until = null,
         (batch_txid, batch_id, batch_wanted, batch_others) = (null, null, null, null),
         (ahead_lease, ahead_txid, ahead_id, ahead_wanted, ahead_others) = (null, null, null, null, null),
         failures = c.failures + 1,
         retry_at = clock_timestamp() + greatest(
           least(fail_batch.retry_after, '1 day'),
           random() * least(300, 2 ^ least(c.failures, 10)) * interval '1 second'),
         last_error = left(fail_batch.error, 1000)
  where  c.sink = fail_batch.sink
  and    c.shard = fail_batch.shard
  and    c.lease = fail_batch.lease
  returning c.retry_at into v_retry_at;
  return v_retry_at;
end $$;
comment on function tracking.fail_batch is
  'Ends a lease: nothing of the batch counts as delivered. Answers when it may be tried again; null where the lease '
  'had passed to somebody else.';
revoke execute on function tracking.fail_batch from public;
grant execute on function tracking.fail_batch to service_role;


-- Again ---------------------------------------------------------------------------------------------

-- True where an event is none of those that a cursor's start had behind it.
create function tracking.is_since(start_epoch smallint, start_seen pg_snapshot, epoch smallint, txid xid8)
  returns boolean
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return epoch > start_epoch or epoch = start_epoch and not pg_visible_in_snapshot(txid, start_seen);
end $$;
comment on function tracking.is_since is 'True where a transaction is later than a cursor''s start.';
revoke execute on function tracking.is_since from public;
grant execute on function tracking.is_since to service_role;

-- The snapshot that sees what both of two see.
create function tracking.seen_by_both(a pg_snapshot, b pg_snapshot)
  returns pg_snapshot
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_xmax constant xid8 := least(pg_snapshot_xmax(a), pg_snapshot_xmax(b));
  v_xip  constant xid8[] := array(
    select x.txid from pg_snapshot_xip(a) as x (txid) where x.txid < v_xmax
    union
    select x.txid from pg_snapshot_xip(b) as x (txid) where x.txid < v_xmax
    order by 1);
begin
  return format('%s:%s:%s', coalesce(v_xip[1], v_xmax), v_xmax, array_to_string(v_xip, ','));
end $$;
comment on function tracking.seen_by_both is 'The snapshot that sees what both of two see.';
revoke execute on function tracking.seen_by_both from public;

-- The transactions that a cursor is done with, as a snapshot; with the one that it is amid it is not.
create function tracking.done_by(cursor tracking.cursors)
  returns pg_snapshot
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_xmax constant xid8 := greatest(pg_snapshot_xmax(cursor.seen), cursor.position_txid);
  v_xip  xid8[];
begin
  if cursor.until is null then
    return cursor.seen;
  elsif not exists (
    select
    from   tracking.next_events(
             cursor.epoch, cursor.seen, cursor.until, cursor.position_txid, cursor.position_id, 1, cursor.shard,
             (select count(*)::integer from tracking.cursors as c where c.sink = cursor.sink))
  ) then
    return cursor.until;
  end if;
  v_xip := array(
    select x.txid
    from   (select pg_snapshot_xip(cursor.seen) union select pg_snapshot_xip(cursor.until)) as x (txid)
    where  x.txid < v_xmax
    and    not (x.txid < cursor.position_txid and pg_visible_in_snapshot(x.txid, cursor.until))
    order  by x.txid);
  return format('%s:%s:%s', coalesce(v_xip[1], v_xmax), v_xmax, array_to_string(v_xip, ','));
end $$;
comment on function tracking.done_by is 'The transactions that a cursor is done with.';
revoke execute on function tracking.done_by from public;

-- Sends everything again that was received since a time; -infinity: everything there is. What is still to be
-- delivered stays so: nothing is ever skipped by it. What was dropped from the log cannot be sent again: that is
-- answered; and dead letters that went from the log meanwhile are kept.
create function tracking.rewind_sink(sink text, "to" timestamptz)
  returns bigint
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch smallint := 1;
  v_txid  xid8 := '1';
  v_seen  pg_snapshot;
begin
  perform tracking.refuse_restored_log();
  lock table tracking.expired in row exclusive mode; -- no partition is dropped meanwhile; before it looks at the log
  if not exists (select from tracking.sinks as s where s.name = rewind_sink.sink) then
    perform tracking.raise_no_sink(rewind_sink.sink);
  end if;
  if rewind_sink."to" is null then
    raise null_value_not_allowed using message = 'A sink is rewound to a time, or to -infinity.';
  elsif rewind_sink."to" <> '-infinity' then
    select e.epoch, e.txid into v_epoch, v_txid
    from   public.events as e
    where  e.received_at >= rewind_sink."to"
    order  by e.epoch, e.txid
    limit  1;
  end if;
  v_seen := case when v_txid is not null then format('%1$s:%1$s:', v_txid)::pg_snapshot end;

  perform from tracking.cursors as c where c.sink = rewind_sink.sink order by c.shard for update;
  update tracking.cursors as c
  set    start_epoch = s.epoch, start_seen = s.seen,
         epoch = s.epoch, seen = s.seen, until = null, position_txid = default, position_id = default,
         lease = null, leased_until = null,
         (batch_txid, batch_id, batch_wanted, batch_others) = (null, null, null, null),
         (ahead_lease, ahead_txid, ahead_id, ahead_wanted, ahead_others) = (null, null, null, null, null),
         failures = 0, retry_at = null, last_error = null, delivered = 0, filtered = 0, undelivered = 0, dropped = 0
  from   (
    select b.shard, least(b.epoch, v_epoch) as epoch, -- no further than it has come, so that nothing is skipped
           case
             when b.epoch < v_epoch or v_txid is null then tracking.done_by(b)
             when b.epoch > v_epoch then v_seen
             else tracking.seen_by_both(tracking.done_by(b), v_seen)
           end as seen
    from   tracking.cursors as b
    where  b.sink = rewind_sink.sink
  ) as s
  where  c.sink = rewind_sink.sink
  and    c.shard = s.shard;
  delete from tracking.undelivered as u
  using  tracking.cursors as c
  where  u.sink = rewind_sink.sink
  and    (c.sink, c.shard) = (u.sink, u.shard)
  and    tracking.is_since(c.start_epoch, c.start_seen, u.epoch, u.txid)
  and    exists (
           select
           from   public.events as e
           where  (e.scope_id, e.occurred_at, e.event_id) = (u.scope_id, tracking.event_time(u.event_id), u.event_id));
  delete from tracking.expired as x where x.sink = rewind_sink.sink;
  insert into tracking.expired (sink, shard, events)
  select c.sink, c.shard, count(*)
  from   tracking.undelivered as u
  join   tracking.cursors as c using (sink, shard)
  where  c.sink = rewind_sink.sink
  and    tracking.is_since(c.start_epoch, c.start_seen, u.epoch, u.txid)
  group  by c.sink, c.shard;
  update tracking.cursors as c
  set    undelivered = x.events
  from   tracking.expired as x
  where  c.sink = rewind_sink.sink
  and    (x.sink, x.shard) = (c.sink, c.shard);
  perform pg_notify('tracking_sinks', rewind_sink.sink);
  return (
    select coalesce(sum(d.events), 0)
    from   tracking.dropped_partitions as d
    where  d.last_received_at >= rewind_sink."to");
end $$;
comment on function tracking.rewind_sink is
  'Puts a sink back to a time: events received since are delivered again, with the same ids and times, and it counts '
  'from there. Answers how many events, at most, were received since and cannot be, because tracking.drop_partitions '
  'took them. Errors: 42704 for an unknown sink, log_restored.';
revoke execute on function tracking.rewind_sink from public;
grant execute on function tracking.rewind_sink to service_role;

-- Says what became of undelivered events that somebody looked after, given as [{"scope_id", "event_id", "error"}]:
-- delivered, they are gone; dropped, too, and counted as given up; refused, they stay with the new error. Those
-- from before the sink's start are in no books. Answers how many it found.
create function tracking.settle_undelivered(sink text, outcome text, events jsonb)
  returns integer
  language plpgsql volatile security definer -- the service role may run it, and writes no cursor by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_settled integer;
begin
  if outcome is null or outcome not in ('delivered', 'dropped', 'refused') then
    raise invalid_parameter_value using message = 'What became of an event is delivered, dropped or refused.';
  end if;
  perform from tracking.cursors as c where c.sink = settle_undelivered.sink order by c.shard for update;
  if outcome = 'refused' then
    update tracking.undelivered as u
    set    error = left(g.error, 1000), failed_at = clock_timestamp(), tries = u.tries + 1
    from   jsonb_to_recordset(settle_undelivered.events) as g (scope_id uuid, event_id uuid, error text)
    where  (u.sink, u.scope_id, u.event_id) = (settle_undelivered.sink, g.scope_id, g.event_id);
    get diagnostics v_settled = row_count;
    return v_settled;
  end if;

  with settled as (
    delete from tracking.undelivered as u
    using  jsonb_to_recordset(settle_undelivered.events) as g (scope_id uuid, event_id uuid)
    where  (u.sink, u.scope_id, u.event_id) = (settle_undelivered.sink, g.scope_id, g.event_id)
    returning u.shard, u.epoch, u.txid
  ),
  booked as (
    update tracking.cursors as c
    set    undelivered = c.undelivered - s.events,
           delivered = c.delivered + case outcome when 'delivered' then s.events else 0 end,
           dropped = c.dropped + case outcome when 'dropped' then s.events else 0 end
    from   (
      select d.shard, count(*) as events
      from   settled as d
      join   tracking.cursors as b on (b.sink, b.shard) = (settle_undelivered.sink, d.shard)
      where  tracking.is_since(b.start_epoch, b.start_seen, d.epoch, d.txid)
      group  by d.shard
    ) as s
    where  (c.sink, c.shard) = (settle_undelivered.sink, s.shard)
  )
  select count(*) into v_settled from settled;
  return v_settled;
end $$;
comment on function tracking.settle_undelivered is
  'Says that undelivered events, [{scope_id, event_id, error}], were delivered after all, dropped, or refused again. '
  'Answers how many there were.';
revoke execute on function tracking.settle_undelivered from public;
grant execute on function tracking.settle_undelivered to service_role;


-- How far -------------------------------------------------------------------------------------------

-- Counts what a cursor has before it: committed, and not yet done with. The first of them stands for the oldest.
create function tracking.pending(cursor tracking.cursors, out events bigint, out oldest timestamptz)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off
  set enable_bitmapscan = off
  set jit = off
as $$
declare
  v_no_id    constant uuid := '00000000-0000-0000-0000-000000000000';
  v_shards   constant integer := (select count(*) from tracking.cursors as c where c.sink = (cursor).sink);
  v_until    constant pg_snapshot := coalesce((cursor).until, '9223372036854775807:9223372036854775807:');
  v_is_late  constant boolean := (cursor).position_txid < pg_snapshot_xmax((cursor).seen);
  v_from     constant xid8 := case when v_is_late then pg_snapshot_xmax((cursor).seen) else (cursor).position_txid end;
  v_after_id constant uuid := case when v_is_late then v_no_id else (cursor).position_id end;
  v_late     bigint;
  v_later    bigint;
  v_oldest   timestamptz;
begin
  -- Of transactions that were under way when one of the snapshots was taken.
  select count(*), min(e.received_at) into v_late, v_oldest
  from   public.events as e
  where  e.epoch = (cursor).epoch
  and    e.txid = any (array(select pg_snapshot_xip((cursor).seen) union select pg_snapshot_xip(v_until)))
  and    (e.txid, e.event_id) <= (v_from, v_after_id)
  and    not pg_visible_in_snapshot(e.txid, (cursor).seen)
  and    not (pg_visible_in_snapshot(e.txid, v_until)
              and (e.txid, e.event_id) <= ((cursor).position_txid, (cursor).position_id))
  and    (v_shards = 1 or (uuid_hash(e.scope_id) & 2147483647) % v_shards = (cursor).shard);
  -- Behind the position, and of later generations; an index has all that is asked for, where it is not about shards.
  if v_shards = 1 then
    select count(*) into v_later
    from   public.events as e
    where  (e.epoch, e.txid, e.event_id) > ((cursor).epoch, v_from, v_after_id);
  else
    select count(*) into v_later
    from   public.events as e
    where  (e.epoch, e.txid, e.event_id) > ((cursor).epoch, v_from, v_after_id)
    and    (uuid_hash(e.scope_id) & 2147483647) % v_shards = (cursor).shard; -- tracking.shard_of, without a call
  end if;
  if v_later > 0 then
    select e.received_at into pending.oldest
    from   public.events as e
    where  (e.epoch, e.txid, e.event_id) > ((cursor).epoch, v_from, v_after_id)
    and    (v_shards = 1 or (uuid_hash(e.scope_id) & 2147483647) % v_shards = (cursor).shard)
    order  by e.epoch, e.txid, e.event_id
    limit  1;
  end if;
  pending.events := v_late + v_later;
  pending.oldest := least(pending.oldest, v_oldest);
end $$;
comment on function tracking.pending is
  'How many events a cursor has before it, and when the first of them was received.';
revoke execute on function tracking.pending from public;
grant execute on function tracking.pending to service_role;

-- Counts what a cursor has had before it since its start.
create function tracking.since_start(cursor tracking.cursors, out events bigint)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  cursor.epoch := cursor.start_epoch;
  cursor.seen := cursor.start_seen;
  cursor.until := null;
  cursor.position_txid := '0';
  since_start.events := (tracking.pending(cursor)).events;
end $$;
comment on function tracking.since_start is 'How many events there are since a cursor''s start.';
revoke execute on function tracking.since_start from public;
grant execute on function tracking.since_start to service_role;

-- For each sink, how far it is behind the log.
create view tracking.sink_lag with (security_invoker = true) as
select s.name as sink, s.kind, s.enabled,
       sum(p.events)::bigint as pending,
       date_part('epoch', clock_timestamp() - min(p.oldest)) as oldest_seconds,
       sum(c.delivered)::bigint as delivered, sum(c.filtered)::bigint as filtered,
       sum(c.undelivered)::bigint as undelivered, sum(c.dropped)::bigint as dropped,
       max(c.failures) as failures, max(c.last_error) as last_error, max(c.retry_at) as retry_at,
       sum(c.events_a_second) as events_a_second
from   tracking.sinks as s
join   tracking.cursors as c on c.sink = s.name
cross  join lateral tracking.pending(c) as p
group  by s.name;
comment on view tracking.sink_lag is
  'Each sink: events pending, the age of the oldest in seconds (null when it has caught up), delivered, filtered, '
  'undelivered and dropped since its start, failures in a row, the last error, when it is tried again, and how fast '
  'its last large batches were.';
grant select on tracking.sink_lag to service_role;

-- What would be lost. A sink's events since its start, those that the log has and those that expired, are delivered,
-- filtered, undelivered, dropped or pending; and those that are undelivered are kept.
create view tracking.delivery_gaps with (security_invoker = true) as
select c.sink, c.shard, a.events, x.expired,
       c.delivered, c.filtered, c.undelivered, k.kept, c.dropped, p.events as pending
from   tracking.cursors as c
cross  join lateral tracking.pending(c) as p
cross  join lateral tracking.since_start(c) as a
cross  join lateral (
  select coalesce(sum(x.events), 0)::bigint as expired
  from   tracking.expired as x
  where  (x.sink, x.shard) = (c.sink, c.shard)
) as x
cross  join lateral (
  select count(*) as kept
  from   tracking.undelivered as u
  where  (u.sink, u.shard) = (c.sink, c.shard)
  and    tracking.is_since(c.start_epoch, c.start_seen, u.epoch, u.txid)
) as k
where  a.events + x.expired <> c.delivered + c.filtered + c.undelivered + c.dropped + p.events
or     k.kept <> c.undelivered;
comment on view tracking.delivery_gaps is
  'Shards of sinks whose books do not balance: empty as long as nothing is lost.';
grant select on tracking.delivery_gaps to service_role;


-- Another cluster -----------------------------------------------------------------------------------

-- Which of the transaction ids that a 32-bit one stands for is nearest to another.
create function tracking.full_xid(id xid, near bigint)
  returns bigint
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_all  constant bigint := 4294967296;
  v_from constant bigint := near - v_all / 2;
begin
  return v_from + mod(mod(id::text::bigint - v_from, v_all) + v_all, v_all);
end $$;
comment on function tracking.full_xid is 'The transaction id with its upper half: the nearest to another.';
revoke execute on function tracking.full_xid from public;

-- Begins a new generation of the log, after it was restored from a dump into another cluster, where the ids of
-- transactions start over. Rows that were written here since belong to it. They are known by xmin, which is what
-- wrote the row here: the transaction that it names, or a later one, as in a subtransaction. A restored row has the
-- xmin of the restore, which it shares with rows of other transactions, or which is earlier than the transaction that
-- the row names; or that one is from before the restore began. What cannot be told, where both clusters were about as
-- far, counts as written here: rather twice than never.
create function tracking.raise_epoch()
  returns smallint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '1s'
as $$
declare
  v_old    constant smallint := tracking.current_epoch();
  v_now    bigint;
  v_policy text;
begin
  if not tracking.is_restored() then
    raise object_not_in_prerequisite_state using
      message = 'log_not_restored',
      detail = 'The log was written in this cluster: a new generation would have every sink send all of it again.';
  end if;
  lock table public.events in share row exclusive mode;
  v_now := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
  with writers as materialized (
    select w.xmin, tracking.full_xid(w.xmin, v_now) as writer, w.first_txid, w.last_txid
    from   (
      select e.xmin, min(e.txid::text::bigint) as first_txid, max(e.txid::text::bigint) as last_txid
      from   public.events as e
      where  e.epoch = v_old
      group  by e.xmin
    ) as w
  ),
  began as materialized (
    select least(tracking.full_xid(l.xmin, v_now), (select min(w.writer) from writers as w)) as txid
    from   tracking.log as l
  )
  update public.events as e
  set    epoch = v_old + 1
  where  e.epoch = v_old
  and    e.xmin in (
    select w.xmin
    from   writers as w
    join   began as b on w.first_txid between b.txid and w.writer
    where  w.first_txid = w.last_txid);

  update tracking.log as l set epoch = v_old + 1;
  update tracking.log as l set written_by = l.xmin;
  execute format('alter table public.events alter column epoch set default %s', v_old + 1);
  select pg_get_expr(p.polwithcheck, p.polrelid) into v_policy
  from   pg_policy as p
  where  p.polrelid = 'public.events'::regclass
  and    p.polcmd = 'a';
  if strpos(coalesce(v_policy, ''), format('(epoch = %s)', v_old)) = 0 then
    raise object_not_in_prerequisite_state using
      message = 'The policy by which people write events does not name the epoch.';
  end if;
  execute format(
    'alter policy "people write events as themselves, for what they may read" on public.events with check (%s)',
    replace(v_policy, format('(epoch = %s)', v_old), format('(epoch = %s)', v_old + 1)));
  return v_old + 1;
end $$;
comment on function tracking.raise_epoch is
  'Run once after a dump was restored into another cluster: sinks finish what the dump brought, and go on with what '
  'is written here. Errors: log_not_restored, 55P03 where somebody is in the way.';
revoke execute on function tracking.raise_epoch from public;


-- Jobs ----------------------------------------------------------------------------------------------
-- What workers do besides delivering, each job on a schedule of its own, and one worker at a time. A row says
-- whose turn it is: no lock is held, so a job may take its time over HTTP, and a worker that dies is waited for.

create table tracking.jobs (
  name       text        primary key,
  due_at     timestamptz not null,
  worker     text,
  held_until timestamptz,
  ended_at   timestamptz,
  last_error text
);
comment on table tracking.jobs is
  'What workers do on a schedule: make partitions, reconcile builds, retry dead letters.';
comment on column tracking.jobs.due_at is 'When it is to be done next.';
comment on column tracking.jobs.worker is 'Who does it, or did it last.';
comment on column tracking.jobs.held_until is 'Nobody else does it before then; null: nobody is at it.';
comment on column tracking.jobs.ended_at is 'When it was last done.';
comment on column tracking.jobs.last_error is 'What went wrong then; null: nothing.';
alter table tracking.jobs enable row level security;
grant select on tracking.jobs to service_role;

-- Gives a job to a worker, where it is due and nobody is at it.
create function tracking.take_job(name text, worker text, seconds integer default 300)
  returns boolean
  language plpgsql volatile security definer -- the service role may run it, and writes no job by hand
  set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from tracking.jobs as j
    where  j.name = take_job.name
    and    (j.due_at > clock_timestamp() or j.held_until > clock_timestamp())
  ) then
    return false;
  end if;
  insert into tracking.jobs as j (name, due_at, worker, held_until)
  values (take_job.name, clock_timestamp(), take_job.worker, clock_timestamp() + make_interval(secs => seconds))
  on     conflict on constraint jobs_pkey do update
    set  worker = excluded.worker, held_until = excluded.held_until
    where j.due_at <= clock_timestamp()
    and   coalesce(j.held_until <= clock_timestamp(), true);
  return found;
end $$;
comment on function tracking.take_job is
  'Gives a job to a worker for so many seconds at most: false where it is not due, or somebody is at it.';
revoke execute on function tracking.take_job from public;
grant execute on function tracking.take_job to service_role;

-- Says that a job is done, and when it is due again.
create function tracking.end_job(name text, worker text, again_in interval, error text default null)
  returns boolean
  language plpgsql volatile security definer -- the service role may run it, and writes no job by hand
  set search_path = pg_catalog, pg_temp
as $$
begin
  update tracking.jobs as j
  set    due_at = clock_timestamp() + again_in,
         held_until = null,
         ended_at = clock_timestamp(),
         last_error = left(end_job.error, 1000)
  where  j.name = end_job.name
  and    j.worker = end_job.worker
  and    j.held_until is not null;
  return found;
end $$;
comment on function tracking.end_job is
  'Says that a job is done, or what went wrong, and when it is due again. False where it had passed to somebody else.';
revoke execute on function tracking.end_job from public;
grant execute on function tracking.end_job to service_role;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
