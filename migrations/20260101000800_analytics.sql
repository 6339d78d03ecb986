-- migrate:up

-- Chapter 8: analytics.
--
-- What analysts read. Everybody asks as themselves: the views and functions of the schema `analytics` show people
-- their own orgs, and the role `analyst` everything.
--
-- Most questions need no more of an event than whose it is, what, and when. That is kept in a rollup, a row for each
-- kind of event, hour and actor, which is a tenth of the log and loses no event's time:
--
--   kinds      which events there are: scope, app, event, channel, and the surface that they happen on
--   activity   who did them, in which hour, and at which times
--   rollup     how far into the log that goes: a cursor, as of a sink
--
-- An answer is the rollup and the tail together, what the cursor has not seen, in one snapshot: it is exact at every
-- moment, however far behind the rollup is. Workers keep it close (tracking.roll_up), so that the tail is short.

create schema analytics;
comment on schema analytics is 'Views and functions for analysts, and for people on their own orgs.';


-- Analysts ------------------------------------------------------------------------------------------

do $$
begin
  if to_regrole('analyst') is null then
    create role analyst nologin;
  end if;
end $$;
grant usage on schema analytics to anon, authenticated, service_role, analyst;
grant usage on schema public, tracking to analyst;
grant select on public.events, public.orgs, public.apps, public.build_requests to analyst;

create policy "analysts read all events" on public.events for select to analyst using (true);
create policy "analysts read all orgs" on public.orgs for select to analyst using (true);
create policy "analysts read all apps" on public.apps for select to analyst using (true);
create policy "analysts read all builds" on public.build_requests for select to analyst using (true);


-- Surfaces ------------------------------------------------------------------------------------------
-- Where people meet the product: in the dashboard, on the command line, in the builder. A project with others says so
-- here.

create table tracking.surfaces (
  surface text not null,
  channel text not null,
  event   text not null default '*',
  primary key (channel, event),
  constraint surface_is_not_blank check (surface ~ '\S')
);
comment on table tracking.surfaces is
  'Which surface an event happens on, by its channel and name; a * at the end stands for anything, the longest name wins.';
comment on column tracking.surfaces.surface is 'dashboard, cli, builder, or one of the project''s own.';
alter table tracking.surfaces enable row level security;
grant select, insert, update, delete on tracking.surfaces to service_role;
insert into tracking.surfaces (surface, channel) values
  ('builder',   'build-lifecycle'),
  ('builder',   'builder-onboarding'),
  ('builder',   'native-builder'),
  ('builder',   'credentials'),
  ('cli',       'app'),
  ('cli',       'cli-usage'),
  ('cli',       'user-login'),
  ('dashboard', 'demo-onboarding'),
  ('dashboard', 'onboarding-build'),
  ('dashboard', 'onboarding-bundle'),
  ('dashboard', 'onboarding-v2'),
  ('dashboard', 'usage');

create function tracking.surface_of(event text, channel text)
  returns text
  language plpgsql stable parallel safe security definer -- clients may not read the table
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select s.surface
    from   tracking.surfaces as s
    where  (surface_of.channel = s.channel
            or right(s.channel, 1) = '*' and starts_with(surface_of.channel, left(s.channel, -1)))
    and    (surface_of.event = s.event
            or right(s.event, 1) = '*' and starts_with(surface_of.event, left(s.event, -1)))
    order  by length(s.event) desc, right(s.event, 1) = '*', length(s.channel) desc, right(s.channel, 1) = '*'
    limit  1
  );
end $$;
comment on function tracking.surface_of is 'The surface that an event happens on, by its name and channel; null for none.';
revoke execute on function tracking.surface_of from public;
grant execute on function tracking.surface_of to anon, authenticated, service_role, analyst;

-- The same for queries of many events, as an expression on their columns: a call for each would cost more than to read it.
create function tracking.surface_expression(of text)
  returns text
  language plpgsql stable security definer -- clients may not read the table
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce('case ' || string_agg(
             format(case when right(s.channel, 1) = '*' then 'when starts_with(%1$I.channel, %2$L)' else 'when %1$I.channel = %3$L' end
                    || case when right(s.event, 1) = '*' then ' and starts_with(%1$I.event, %4$L)' else ' and %1$I.event = %5$L' end
                    || ' then %6$L',
               of, left(s.channel, -1), s.channel, left(s.event, -1), s.event, s.surface),
             ' ' order by length(s.event) desc, right(s.event, 1) = '*', length(s.channel) desc, right(s.channel, 1) = '*') || ' end',
           'null::text')
    from   tracking.surfaces as s
  );
end $$;
comment on function tracking.surface_expression is 'The surface of an event, as an SQL expression on its columns event and channel.';
revoke execute on function tracking.surface_expression from public;
grant execute on function tracking.surface_expression to anon, authenticated, service_role, analyst;


-- The rollup ----------------------------------------------------------------------------------------

create table tracking.kinds (
  kind_id  integer generated by default as identity primary key,
  scope_id uuid    not null,
  org_id   uuid,
  app_id   text,
  event    text    not null,
  channel  text    not null,
  surface  text,
  constraint kind_is_there_once unique nulls not distinct (scope_id, org_id, app_id, event, channel)
);
comment on table tracking.kinds is 'The kinds of events that each scope has had.';
comment on sequence tracking.kinds_kind_id_seq is 'Numbers the kinds.';
comment on column tracking.kinds.scope_id is 'The org, or the actor where there is no org.';
comment on column tracking.kinds.surface is 'Where they happen, as tracking.surfaces has it.';

create table tracking.activity (
  kind_id  integer       not null,
  hour     timestamptz   not null,
  actor_id uuid,
  times    timestamptz[] not null,
  constraint activity_is_there_once unique nulls not distinct (kind_id, hour, actor_id)
) with (fillfactor = 80);
create index activity_actor_id_hour on tracking.activity (actor_id, hour);
comment on table tracking.activity is 'Who did what in which hour: a row for each kind of event, hour and actor.';
comment on column tracking.activity.hour is 'The hour, by occurred_at, in UTC.';
comment on column tracking.activity.times is 'The occurred_at of each of the events, in no order.';

create table tracking.rollup (
  only_row boolean     primary key default true,
  epoch    smallint    not null default 1,
  seen     pg_snapshot not null default '1:1:',
  constraint rollup_has_one_row check (only_row)
);
comment on table tracking.rollup is 'How much of the log the rollup has.';
comment on column tracking.rollup.only_row is 'True: keeps the table at one row.';
comment on column tracking.rollup.epoch is 'The generation of the log that it reads.';
comment on column tracking.rollup.seen is 'The snapshot whose transactions it has.';
insert into tracking.rollup default values;

alter table tracking.kinds enable row level security;
alter table tracking.activity enable row level security;
alter table tracking.rollup enable row level security;
grant select on tracking.kinds, tracking.activity, tracking.rollup to anon, authenticated, service_role, analyst;

create policy "people read the kinds of the events that they may read" on tracking.kinds
  for select to anon, authenticated
  using (
    scope_id = any (array(select org.readable()))
    or (
      scope_id = any (array(select r.owner_org from app.readable() as r))
      and app_id = any (array(select r.app_id from app.readable() as r))
    )
    or (
      scope_id = (select tracking.actor())
      and org_id is null
      and (select tracking.api_key()) is null
    )
  );
create policy "people read the activity of the kinds that they may read" on tracking.activity
  for select to anon, authenticated
  using (kind_id in (select k.kind_id from tracking.kinds as k));
create policy "people see how far the rollup is" on tracking.rollup for select to anon, authenticated using (true);
create policy "analysts read all kinds" on tracking.kinds for select to analyst using (true);
create policy "analysts read all activity" on tracking.activity for select to analyst using (true);
create policy "analysts see how far the rollup is" on tracking.rollup for select to analyst using (true);

-- Takes events of the log into the rollup: those for which a condition on `e` holds. Answers how many.
create function tracking.add_activity(condition text)
  returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_events bigint;
begin
  execute format($query$
    with batch as materialized (
      select e.scope_id, e.org_id, e.app_id, e.event, e.channel, e.actor_id, e.occurred_at
      from   public.events as e
      where  %s
    ),
    named as (
      select b.scope_id, b.org_id, b.app_id, b.event, b.channel, k.kind_id
      from   (select distinct scope_id, org_id, app_id, event, channel from batch) as b
      left   join tracking.kinds as k
      on     (k.scope_id, k.event, k.channel) = (b.scope_id, b.event, b.channel)
      and    k.org_id is not distinct from b.org_id
      and    k.app_id is not distinct from b.app_id
    ),
    added as (
      insert into tracking.kinds (scope_id, org_id, app_id, event, channel, surface)
      select n.scope_id, n.org_id, n.app_id, n.event, n.channel, tracking.surface_of(n.event, n.channel)
      from   named as n
      where  n.kind_id is null
      returning scope_id, org_id, app_id, event, channel, kind_id
    ),
    known as (
      select * from named where kind_id is not null union all select * from added
    ),
    added_activity as (
      insert into tracking.activity as a (kind_id, hour, actor_id, times)
      select k.kind_id, date_trunc('hour', b.occurred_at, 'UTC') as hour, b.actor_id, array_agg(b.occurred_at)
      from   batch as b
      join   known as k
      on     (k.scope_id, k.event, k.channel) = (b.scope_id, b.event, b.channel)
      and    k.org_id is not distinct from b.org_id
      and    k.app_id is not distinct from b.app_id
      group  by 1, 2, 3
      order  by 1, 2, 3
      on     conflict on constraint activity_is_there_once do update set times = a.times || excluded.times
    )
    select count(*) from batch
  $query$, condition) into v_events;
  return v_events;
end $$;
comment on function tracking.add_activity is 'Takes the events of the log for which a condition holds into the rollup.';
revoke execute on function tracking.add_activity from public;

-- Brings the rollup further, by about so many events: by whole transactions, so that its cursor is a snapshot and
-- nothing else. First come transactions that were under way when the last snapshot was taken, then the later ones, up
-- to the one with which it is enough. One at a time: where somebody is at it, there is nothing to do.
create function tracking.roll_up(max_events integer default 50000)
  returns bigint
  language plpgsql volatile security definer -- the service role may run it, and writes no rollup by hand
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off -- with stale statistics the planner would rather read the whole log
  set enable_bitmapscan = off
  set jit = off
as $$
declare
  v_epoch  smallint;
  v_rollup tracking.rollup;
  v_now    pg_snapshot;
  v_last   xid8;
  v_added  bigint := 0;
begin
  if max_events is null or max_events < 1 then
    raise invalid_parameter_value using message = 'The rollup is brought further by one event or more.';
  end if;
  perform tracking.refuse_restored_log();
  v_epoch := tracking.current_epoch();
  select r.* into v_rollup from tracking.rollup as r for update skip locked;
  while v_added = 0 and v_rollup.epoch is not null loop
    v_now := case
      when v_rollup.epoch = v_epoch then tracking.current_snapshot()
      else '9223372036854775807:9223372036854775807:'
    end;
    select e.txid into v_last
    from   public.events as e
    where  e.epoch = v_rollup.epoch
    and    e.txid >= pg_snapshot_xmax(v_rollup.seen)
    and    pg_visible_in_snapshot(e.txid, v_now)
    order  by e.txid
    offset max_events - 1
    limit  1;
    v_added := tracking.roll_up_between(v_rollup, v_now, v_last);
    exit when v_last is null and v_rollup.epoch = v_epoch;
    select r.* into v_rollup from tracking.rollup as r;
  end loop;
  return v_added;
end $$;
comment on function tracking.roll_up is
  'Takes about so many events, or more where a transaction has more, from the log into the rollup. Answers how many; '
  '0 where it has them all, or somebody else is at it. Errors: log_restored.';
revoke execute on function tracking.roll_up from public;
grant execute on function tracking.roll_up to service_role;

-- Takes what one snapshot sees, up to a transaction (null: to the end), and the rollup does not have.
create function tracking.roll_up_between(rollup tracking.rollup, now pg_snapshot, last xid8)
  returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_late  constant text[] := array(
    select x.txid::text from pg_snapshot_xip(rollup.seen) as x (txid) where pg_visible_in_snapshot(x.txid, now));
  v_to    constant text := coalesce((last::text::bigint + 1)::text, pg_snapshot_xmax(now)::text);
  v_added bigint := 0;
begin
  if v_late <> '{}' then
    v_added := tracking.add_activity(format('e.epoch = %s and e.txid = any (%L::xid8[])', rollup.epoch, v_late));
  end if;
  v_added := v_added + tracking.add_activity(format(
    'e.epoch = %s and e.txid >= %L and e.txid < %L and pg_visible_in_snapshot(e.txid, %L)',
    rollup.epoch, pg_snapshot_xmax(rollup.seen), v_to, now));
  update tracking.rollup as r
  set    (epoch, seen) = (select n.epoch, n.seen from tracking.rolled_up_to(rollup.epoch, now, last) as n);
  return v_added;
end $$;
comment on function tracking.roll_up_between is 'Takes the events between the rollup and a snapshot, and moves its cursor.';
revoke execute on function tracking.roll_up_between from public;

-- Where the cursor is then: what the snapshot sees, up to the last transaction; or at the beginning of the next
-- generation of the log, where this one is read to its end and written no more.
create function tracking.rolled_up_to(inout epoch smallint, now pg_snapshot, last xid8, out seen pg_snapshot)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_xip xid8[];
begin
  if last is not null then
    v_xip := array(select x.txid from pg_snapshot_xip(now) as x (txid) where x.txid <= last order by 1);
    seen := format('%s:%s:%s', coalesce(v_xip[1]::text, (last::text::bigint + 1)::text), last::text::bigint + 1,
      array_to_string(v_xip, ','));
  elsif epoch = tracking.current_epoch() then
    seen := now;
  else
    epoch := epoch + 1;
    seen := '1:1:';
  end if;
end $$;
comment on function tracking.rolled_up_to is 'The cursor of a rollup that has what a snapshot sees, up to a transaction.';
revoke execute on function tracking.rolled_up_to from public;

-- Counts hours anew from the log: those since a time, and all by default. It is never needed, but after somebody has
-- changed the log by hand.
create function tracking.recount_activity(since timestamptz default '-infinity')
  returns bigint
  language plpgsql volatile security definer -- the service role may run it, and writes no rollup by hand
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_since  constant timestamptz := case when isfinite(since) then date_trunc('hour', since, 'UTC') else since end;
  v_rollup tracking.rollup;
begin
  if since is null then
    raise null_value_not_allowed using message = 'Hours are counted anew since a time, or since -infinity.';
  end if;
  perform tracking.refuse_restored_log();
  select r.* into v_rollup from tracking.rollup as r for update;
  delete from tracking.activity as a where a.hour >= v_since;
  return tracking.add_activity(format(
    'e.occurred_at >= %L and (e.epoch < %s or e.epoch = %2$s and pg_visible_in_snapshot(e.txid, %L))',
    v_since, v_rollup.epoch, v_rollup.seen));
end $$;
comment on function tracking.recount_activity is
  'Counts the hours since a time anew from the log, as far as the rollup has come. Answers how many events they have. '
  'Errors: log_restored.';
revoke execute on function tracking.recount_activity from public;
grant execute on function tracking.recount_activity to service_role;

create function tracking.keep_surfaces()
  returns trigger
  language plpgsql volatile security definer -- whoever may change the surfaces, the kinds are kept by the database
  set search_path = pg_catalog, pg_temp
as $$
begin
  update tracking.kinds as k
  set    surface = tracking.surface_of(k.event, k.channel)
  where  k.event <> ''
  and    k.surface is distinct from tracking.surface_of(k.event, k.channel);
  return null;
end $$;
comment on function tracking.keep_surfaces is 'Has the kinds of events follow where the surfaces are changed.';
revoke execute on function tracking.keep_surfaces from public;
create trigger changed_surfaces_are_kept after insert or update or delete on tracking.surfaces
  for each statement execute function tracking.keep_surfaces();


-- The rollup and the tail ---------------------------------------------------------------------------

-- The tail: events that the rollup does not have yet, under the caller's rights.
create function tracking.unrolled()
  returns table (
    scope_id uuid, org_id uuid, app_id text, event text, channel text, surface text, actor_id uuid,
    occurred_at timestamptz)
  language plpgsql stable parallel safe
  set search_path = pg_catalog, pg_temp
  set enable_seqscan = off -- with stale statistics the planner would rather read the whole log
  set enable_bitmapscan = off
  set jit = off
as $$
declare
  v_rollup constant tracking.rollup := (select r from tracking.rollup as r);
  v_late   constant xid8[] := array(select pg_snapshot_xip(v_rollup.seen));
begin
  return query
    with tail as materialized (
      select l.scope_id, l.org_id, l.app_id, l.event, l.channel, l.actor_id, l.occurred_at::timestamptz
      from   public.events as l
      where  l.epoch = v_rollup.epoch and l.txid = any (v_late)
      union  all
      select n.scope_id, n.org_id, n.app_id, n.event, n.channel, n.actor_id, n.occurred_at::timestamptz
      from   public.events as n
      where  (n.epoch, n.txid) >= (v_rollup.epoch, pg_snapshot_xmax(v_rollup.seen))
    ),
    placed as materialized (
      select t.event, t.channel, tracking.surface_of(t.event, t.channel) as surface
      from   (select distinct t.event, t.channel from tail as t) as t
    )
    select t.scope_id, t.org_id, t.app_id, t.event, t.channel, p.surface, t.actor_id, t.occurred_at
    from   tail as t
    join   placed as p on p.event = t.event and p.channel = t.channel;
end $$;
comment on function tracking.unrolled is 'The events that are not in the rollup yet, as far as the caller may read them.';
revoke execute on function tracking.unrolled from public;
grant execute on function tracking.unrolled to anon, authenticated, service_role, analyst;

-- Who did what in which hour: the rollup and the tail together. (Types are the same on both sides, or each row would be
-- computed whole, with columns that nobody asks for.)
create view tracking.hours with (security_invoker = true) as
select k.scope_id, k.org_id, k.app_id, k.event, k.channel, k.surface, a.actor_id, a.hour,
       cardinality(a.times)::bigint as events,
       case when cardinality(a.times) = 1 then a.times[1] else (select min(t) from unnest(a.times) as t) end as first_at,
       case when cardinality(a.times) = 1 then a.times[1] else (select max(t) from unnest(a.times) as t) end as last_at
from   tracking.kinds as k
join   tracking.activity as a on a.kind_id = k.kind_id
union  all
select u.scope_id, u.org_id, u.app_id, u.event, u.channel, u.surface, u.actor_id,
       date_trunc('hour', u.occurred_at, 'UTC'), 1::bigint, u.occurred_at, u.occurred_at
from   tracking.unrolled() as u;
comment on view tracking.hours is 'Who did what in which hour, exact at every moment; a key may come more than once.';
grant select on tracking.hours to anon, authenticated, service_role, analyst;

-- Questions to the log are put together as text, so that each is planned for the filters that it has, and asks for
-- nothing that it does not need.

-- The filters, as conditions on the columns of an event, or of a kind. (Where there is an org, it is the scope; to say so
-- twice would have the planner take it for twice as rare.)
create function tracking.filters(of text, org uuid, app text, events text[])
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return concat_ws(' and ', 'true',
    case when org is not null then format('%I.scope_id = %L and %1$I.org_id is not null', of, org) end,
    case when app is not null then format('%I.app_id = %L', of, app) end,
    case when events is not null then format('%I.event = any (%L::text[])', of, events) end);
end $$;
comment on function tracking.filters is 'Conditions on an org, an app and the names of events, as SQL.';
revoke execute on function tracking.filters from public;
grant execute on function tracking.filters to anon, authenticated, service_role, analyst;

-- Times, from one on and before another.
create function tracking.time_filter(of text, since timestamptz, until timestamptz)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return concat_ws(' and ', 'true',
    case when since is not null then format('%s >= %L', of, since) end,
    case when until is not null then format('%s < %L', of, until) end);
end $$;
comment on function tracking.time_filter is 'Conditions on a time, as SQL.';
revoke execute on function tracking.time_filter from public;
grant execute on function tracking.time_filter to anon, authenticated, service_role, analyst;

-- The same for the hours of an org, by the kinds themselves: so the planner knows how many hours these have, and does not
-- take a large org for an average one.
create function tracking.kind_filter(of text, org uuid, app text, events text[])
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if org is null then
    return 'true';
  end if;
  return format('%I.kind_id = any (%L::integer[])', of, array(
    select k.kind_id
    from   tracking.kinds as k
    where  k.scope_id = org
    and    k.org_id is not null
    and    (app is null or k.app_id = app)
    and    (events is null or k.event = any (events))
  ));
end $$;
comment on function tracking.kind_filter is 'A condition on the kinds of an org that other filters let through, as SQL.';
revoke execute on function tracking.kind_filter from public;
grant execute on function tracking.kind_filter to anon, authenticated, service_role, analyst;

-- Whether the rollup has what is asked for: it knows no tags.
create function tracking.asks_rollup(tags jsonb, with_tags boolean default false)
  returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(tags, '{}') = '{}' and not with_tags
    and coalesce(nullif(current_setting('actorscope.rollups', true), '')::boolean, true);
end $$;
comment on function tracking.asks_rollup is
  'True where a question is put to the rollup; false where it is about tags, or after "set actorscope.rollups = off".';
revoke execute on function tracking.asks_rollup from public;
grant execute on function tracking.asks_rollup to anon, authenticated, service_role, analyst;

-- A subquery of the events that filters let through: scope_id, org_id, app_id, event, channel, surface, actor_id,
-- occurred_at, and tags where they are asked for.
create function tracking.events_query(
  org uuid, app text, since timestamptz, until timestamptz, tags jsonb,
  events text[] default null, with_tags boolean default false)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not tracking.asks_rollup(tags, with_tags) then
    return format(
      $query$select e.scope_id, e.org_id, e.app_id, e.event, e.channel, %s as surface, e.actor_id, e.occurred_at::timestamptz%s
      from   public.events as e
      where  %s and %s%s$query$,
      tracking.surface_expression('e'),
      case when with_tags then ', e.tags' end,
      tracking.filters('e', org, app, events),
      tracking.time_filter('e.occurred_at', since, until),
      case when tags <> '{}' then format(' and e.tags @> %L', tags) end);
  end if;
  return format(
    $query$select r.*
      from   (
        select k.scope_id, k.org_id, k.app_id, k.event, k.channel, k.surface, a.actor_id, unnest(a.times) as occurred_at
        from   tracking.kinds as k
        join   tracking.activity as a on a.kind_id = k.kind_id
        where  %s and %s and %s
      ) as r
      where  %s
      union  all
      select u.scope_id, u.org_id, u.app_id, u.event, u.channel, u.surface, u.actor_id, u.occurred_at
      from   tracking.unrolled() as u
      where  %s and %s$query$,
    tracking.filters('k', org, app, events),
    tracking.kind_filter('a', org, app, events),
    tracking.time_filter('a.hour', date_trunc('hour', since, 'UTC'), until),
    tracking.time_filter('r.occurred_at', since, until),
    tracking.filters('u', org, app, events),
    tracking.time_filter('u.occurred_at', since, until));
end $$;
comment on function tracking.events_query is
  'A subquery, as SQL, of the events that filters let through: scope_id, org_id, app_id, event, channel, surface, '
  'actor_id, occurred_at, tags where they are asked for.';
revoke execute on function tracking.events_query from public;
grant execute on function tracking.events_query to anon, authenticated, service_role, analyst;

-- A subquery of who did what in which hour: scope_id, org_id, app_id, event, channel, surface, actor_id, hour, events,
-- first_at, last_at; as in tracking.hours. Of hours that the filters cut, the events that are left are rows of their own.
create function tracking.hours_query(
  org uuid, app text, since timestamptz, until timestamptz, tags jsonb, events text[] default null)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_hour constant interval := '1 hour';
  v_from constant timestamptz := date_trunc('hour', since + v_hour - interval '1 microsecond', 'UTC');
  v_to   constant timestamptz := date_trunc('hour', until, 'UTC');
  v_cut  text := '';
begin
  if not tracking.asks_rollup(tags) then
    return format(
      $query$select e.scope_id, e.org_id, e.app_id, e.event, e.channel, e.surface, e.actor_id,
             date_bin('1 hour', e.occurred_at, '1970-01-01 00:00+00') as hour, 1::bigint as events,
             e.occurred_at as first_at, e.occurred_at as last_at
      from   (%s) as e$query$,
      tracking.events_query(org, app, since, until, tags, events));
  end if;
  if since < v_from then
    v_cut := tracking.cut_hour(tracking.events_query(org, app, since, least(v_from, until), tags, events));
  end if;
  if v_to < until then
    v_cut := v_cut || tracking.cut_hour(tracking.events_query(org, app, greatest(v_from, v_to), until, tags, events));
  end if;
  return format(
    $query$select k.scope_id, k.org_id, k.app_id, k.event, k.channel, k.surface, a.actor_id, a.hour,
             cardinality(a.times)::bigint as events,
             case when cardinality(a.times) = 1 then a.times[1] else (select min(t) from unnest(a.times) as t) end as first_at,
             case when cardinality(a.times) = 1 then a.times[1] else (select max(t) from unnest(a.times) as t) end as last_at
      from   tracking.kinds as k
      join   tracking.activity as a on a.kind_id = k.kind_id
      where  %s and %s and %s
      union  all
      select u.scope_id, u.org_id, u.app_id, u.event, u.channel, u.surface, u.actor_id,
             date_trunc('hour', u.occurred_at, 'UTC'), 1::bigint, u.occurred_at, u.occurred_at
      from   tracking.unrolled() as u
      where  %s and %s%s$query$,
    tracking.filters('k', org, app, events), tracking.kind_filter('a', org, app, events), tracking.time_filter('a.hour', v_from, v_to),
    tracking.filters('u', org, app, events), tracking.time_filter('u.occurred_at', v_from, v_to), v_cut);
end $$;
comment on function tracking.hours_query is
  'A subquery, as SQL, of who did what in which hour: scope_id, org_id, app_id, event, channel, surface, actor_id, '
  'hour, events, first_at, last_at. A key may come more than once.';
revoke execute on function tracking.hours_query from public;
grant execute on function tracking.hours_query to anon, authenticated, service_role, analyst;

-- Events as hours with one event each, to be added to others.
create function tracking.cut_hour(events_query text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
      union  all
      select e.scope_id, e.org_id, e.app_id, e.event, e.channel, e.surface, e.actor_id,
             date_trunc('hour', e.occurred_at, 'UTC'), 1::bigint, e.occurred_at, e.occurred_at
      from   (%s) as e$query$, events_query);
end $$;
comment on function tracking.cut_hour is 'Adds the events of a subquery to one of hours, as SQL.';
revoke execute on function tracking.cut_hour from public;
grant execute on function tracking.cut_hour to anon, authenticated, service_role, analyst;


-- Views ---------------------------------------------------------------------------------------------

-- Events, flat. `occurred_at` is the log's, by which filters are fast; `happened_at` is corrected by how far the
-- client's clock was off, where it told us.
create view analytics.events with (security_invoker = true) as
select e.event_id,
       e.occurred_at,
       (e.occurred_at + coalesce(e.clock_skew, '0')) at time zone 'UTC' as happened_at,
       e.received_at at time zone 'UTC' as received_at,
       date_part('epoch', e.clock_skew) as skew_seconds,
       e.scope_id, e.org_id, o.name as org, e.app_id, a.name as app, e.actor_id, e.api_key_id,
       e.event, e.channel,
       (select tracking.surface_of(e.event, e.channel)) as surface,
       e.description, e.icon, e.notify, e.tags, e.context, e.source, e.tracking_version
from   public.events as e
left   join public.orgs as o on o.id = e.org_id
left   join public.apps as a on a.app_id = e.app_id;
comment on view analytics.events is 'The log, flat, with the names of orgs and apps; under the reader''s rights.';
comment on column analytics.events.occurred_at is 'When it happened, as the client''s clock had it; filter by this.';
comment on column analytics.events.happened_at is
  'When it happened, in UTC, corrected by the client''s clock skew where that is known.';
comment on column analytics.events.received_at is 'When the database got it, in UTC.';
comment on column analytics.events.skew_seconds is 'How far the client''s clock was behind, in seconds; null where it is not known.';
comment on column analytics.events.surface is 'Where it happened: dashboard, cli, builder, or what tracking.surfaces says.';

-- Builds, in the words of OpenTelemetry's conventions for CI.
create view analytics.builds with (security_invoker = true) as
select b.id as build_id, b.owner_org as org_id, o.name as org, b.app_id, a.name as app, b.requested_by as actor_id,
       b.platform, b.build_mode, b.status,
       case b.status
         when 'succeeded' then 'success'
         when 'failed' then 'failure'
         when 'timed_out' then 'timeout'
         when 'cancelled' then 'cancellation'
         when 'expired' then 'error'
         when 'released' then 'skip'
       end as result,
       case when b.status in ('failed', 'timed_out') then (select tracking.failure_category(b.status, b.last_error)) end as failure_category,
       b.created_at as requested_at, b.queued_at, b.started_at, b.completed_at as finished_at,
       date_part('epoch', case when num_nulls(b.started_at) = 0 then greatest(b.started_at - b.created_at, '0') end)
         as queue_seconds,
       date_part('epoch', case when num_nulls(b.started_at, b.completed_at) = 0 then greatest(b.completed_at - b.started_at, '0') end)
         as run_seconds
from   public.build_requests as b
left   join public.orgs as o on o.id = b.owner_org
left   join public.apps as a on a.app_id = b.app_id;
comment on view analytics.builds is 'One row a build: who asked, for whom, how long it waited and ran, and how it ended.';
comment on column analytics.builds.result is
  'cicd.pipeline.result of OpenTelemetry: success, failure, timeout, cancellation, error (no builder took it) or skip '
  '(given back by the builder); null until it has ended.';
comment on column analytics.builds.failure_category is 'timeout, validation_error, builder_error or unknown, of a build that failed.';
comment on column analytics.builds.queued_at is 'When it was handed to a builder; null where it never was.';
comment on column analytics.builds.queue_seconds is 'From the request until it ran; null where it never did.';
comment on column analytics.builds.run_seconds is 'From then until its end.';

create view analytics.actors with (security_invoker = true) as
select h.actor_id, min(h.first_at) as first_seen, max(h.last_at) as last_seen, sum(h.events)::bigint as events,
       count(distinct (h.hour at time zone 'UTC')::date) as active_days,
       coalesce(array_agg(distinct h.surface order by h.surface) filter (where h.surface is not null), '{}') as surfaces,
       coalesce(array_agg(distinct h.org_id order by h.org_id) filter (where h.org_id is not null), '{}') as orgs
from   tracking.hours as h
where  h.actor_id is not null
group  by h.actor_id;
comment on view analytics.actors is 'One row a person: when first and last seen, how much, on how many days (UTC), where, and for whom.';
comment on column analytics.actors.surfaces is 'The surfaces on which the person was seen.';
comment on column analytics.actors.orgs is 'The organizations for which the person did something.';

create view analytics.orgs with (security_invoker = true) as
select s.org_id, o.name as org, s.first_seen, s.last_seen, s.events, s.active_days, s.actors, s.surfaces
from   (
  select h.org_id, min(h.first_at) as first_seen, max(h.last_at) as last_seen, sum(h.events)::bigint as events,
         count(distinct (h.hour at time zone 'UTC')::date) as active_days, count(distinct h.actor_id) as actors,
         coalesce(array_agg(distinct h.surface order by h.surface) filter (where h.surface is not null), '{}') as surfaces
  from   tracking.hours as h
  where  h.org_id is not null
  group  by h.org_id
) as s
left   join public.orgs as o on o.id = s.org_id;
comment on view analytics.orgs is 'One row an organization: when first and last seen, how much, on how many days (UTC), by how many, and where.';

create view analytics.actor_orgs with (security_invoker = true) as
select s.actor_id, s.org_id, o.name as org, s.first_seen, s.last_seen, s.events, s.active_days, s.surfaces
from   (
  select h.actor_id, h.org_id, min(h.first_at) as first_seen, max(h.last_at) as last_seen,
         sum(h.events)::bigint as events, count(distinct (h.hour at time zone 'UTC')::date) as active_days,
         coalesce(array_agg(distinct h.surface order by h.surface) filter (where h.surface is not null), '{}') as surfaces
  from   tracking.hours as h
  where  h.actor_id is not null
  and    h.org_id is not null
  group  by h.actor_id, h.org_id
) as s
left   join public.orgs as o on o.id = s.org_id;
comment on view analytics.actor_orgs is 'Who acted for whom, and when: one row a person and organization.';

grant select on analytics.events, analytics.builds, analytics.actors, analytics.orgs, analytics.actor_orgs
  to anon, authenticated, service_role, analyst;
grant execute on function tracking.failure_category to anon, authenticated, service_role, analyst;

-- Without a worker: where pg_cron is installed, it brings the rollup further each minute.
do $$
begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    perform cron.schedule('actorscope-roll-up', '* * * * *', 'select tracking.roll_up(200000)');
  end if;
end $$;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
