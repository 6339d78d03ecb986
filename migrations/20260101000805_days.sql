-- migrate:up

-- Chapter 8.05: days.
--
-- Who did something on which day: most questions about many people need no more, and those are answered by sets of
-- people, and by what sets have in common. Everybody gets a number, and a set is a string of bits: who is in it has a
-- one in the place of their number. To count those who came back is to "and" two strings then, of a few kilobytes,
-- instead of sorting or hashing what they did.
--
--   members   the numbers: of people in each org, of all people, and of orgs
--   days      for each circle, event and day: how many events, and the set of those who did it
--
-- They follow tracking.activity (chapter 8) by triggers, whoever changes it: with events that come late, and with those
-- that are erased. A string has 4,096 places; further members are on further pages.


-- Circles -------------------------------------------------------------------------------------------
-- A circle is an org, whose members are the people who did something for it; or everybody; or all orgs.

create function tracking.everybody()
  returns uuid
  language plpgsql immutable parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return '00000000-0000-0000-0000-000000000000';
end $$;
comment on function tracking.everybody is 'The circle whose members are all people.';

create function tracking.all_orgs()
  returns uuid
  language plpgsql immutable parallel safe
  set search_path = pg_catalog, pg_temp
as $$
begin
  return 'ffffffff-ffff-ffff-ffff-ffffffffffff';
end $$;
comment on function tracking.all_orgs is 'The circle whose members are all orgs.';
revoke execute on function tracking.everybody, tracking.all_orgs from public;
grant execute on function tracking.everybody, tracking.all_orgs to anon, authenticated, service_role, analyst;

create table tracking.members (
  circle uuid    not null,
  member uuid    not null,
  number integer not null,
  primary key (circle, member),
  constraint number_is_one_members unique (circle, number)
);
comment on table tracking.members is 'The numbers of the members of each circle.';
comment on column tracking.members.circle is 'An org, tracking.everybody() or tracking.all_orgs().';
comment on column tracking.members.member is 'A person; of the circle of all orgs, an org.';
comment on column tracking.members.number is 'From 0 on.';

create table tracking.days (
  circle  uuid        not null,
  event   text,
  channel text,
  day     date        not null,
  page    integer     not null,
  events  bigint      not null,
  members bit varying not null,
  constraint day_is_there_once unique nulls not distinct (circle, event, channel, day, page)
) with (fillfactor = 80);
comment on table tracking.days is 'Who of a circle did what on which day (UTC): a row for each event, and one for all events together.';
comment on column tracking.days.circle is 'An org, tracking.everybody() or tracking.all_orgs().';
comment on column tracking.days.event is 'The event; null: whichever.';
comment on column tracking.days.channel is 'Its channel; null: whichever.';
comment on column tracking.days.page is 'Which members: those whose numbers divided by 4,096 are this.';
comment on column tracking.days.events is 'How many events they had; on page 0 also those of nobody.';
comment on column tracking.days.members is 'A one for each who was there, in the place of the number modulo 4,096. The zeros behind the last are left out.';

alter table tracking.members enable row level security;
alter table tracking.days enable row level security;
grant select on tracking.members, tracking.days to anon, authenticated, service_role, analyst;
create policy "people read the members of their own orgs" on tracking.members
  for select to anon, authenticated using (circle = any (array(select org.readable())));
create policy "people read the days of their own orgs" on tracking.days
  for select to anon, authenticated using (circle = any (array(select org.readable())));
create policy "analysts read all members" on tracking.members for select to analyst using (true);
create policy "analysts read all days" on tracking.days for select to analyst using (true);


-- Following the activity ----------------------------------------------------------------------------

-- What a change of the activity is to the circles: a query of circle, event, channel, day, member and events; given a
-- query of kind_id, hour, actor_id and events.
create function tracking.circles_query(changes_query text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    select c.circle, k.event, k.channel, (a.hour at time zone 'UTC')::date as day, c.member, sum(a.events) as events
    from   (%s) as a
    join   tracking.kinds as k on k.kind_id = a.kind_id
    cross  join lateral (
      values (k.org_id, a.actor_id), (tracking.everybody(), a.actor_id), (nullif(tracking.all_orgs(), coalesce(k.org_id, tracking.all_orgs())), k.org_id)
    ) as c (circle, member)
    where  c.circle is not null
    group  by 1, 2, 3, 4, 5
    $query$, changes_query);
end $$;
comment on function tracking.circles_query is 'A query of what a change of the activity is to the circles, as SQL.';
revoke execute on function tracking.circles_query from public;

-- Adds to the days, and gives a number to whoever has none.
create function tracking.add_days_query(changes_query text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    with changes as materialized (%s),
    strangers as (
      select c.circle, c.member from changes as c where c.member is not null
      except
      select m.circle, m.member from tracking.members as m
      where  (m.circle, m.member) in (select c.circle, c.member from changes as c)
    ),
    numbered as (
      insert into tracking.members as m (circle, member, number)
      select s.circle, s.member, coalesce(l.number, -1) + row_number() over (partition by s.circle)
      from   strangers as s
      left   join (
        select c.circle, (select max(m.number) from tracking.members as m where m.circle = c.circle) as number
        from   (select distinct circle from strangers) as c
      ) as l on l.circle = s.circle
      returning m.circle, m.member, m.number
    ),
    known as (
      select n.circle, n.member, n.number from numbered as n
      union  all
      select m.circle, m.member, m.number from tracking.members as m
      where  (m.circle, m.member) in (select c.circle, c.member from changes as c)
    ),
    sets as (
      select c.circle, c.event, c.channel, c.day, coalesce(k.number >> 12, 0) as page, sum(c.events) as events,
             bit_or(set_bit(0::bit(4096), k.number & 4095, 1)) as members, max(k.number & 4095) / 64 * 64 + 64 as places
      from   changes as c
      left   join known as k on (k.circle, k.member) = (c.circle, c.member)
      group  by 1, 2, 3, 4, 5
    )
    insert into tracking.days as d (circle, event, channel, day, page, events, members)
    select s.circle, n.event, n.channel, s.day, s.page, sum(s.events),
           substring(coalesce(bit_or(s.members), 0::bit(4096)) for coalesce(max(s.places), 0))
    from   sets as s
    cross  join lateral (values (s.event, s.channel), (null, null)) as n (event, channel)
    group  by 1, 2, 3, 4, 5
    order  by 1, 2, 3, 4, 5
    on     conflict on constraint day_is_there_once do update set
      events = d.events + excluded.events,
      members = (d.members || substring(0::bit(4096) for greatest(length(excluded.members) - length(d.members), 0)))
              | (excluded.members || substring(0::bit(4096) for greatest(length(d.members) - length(excluded.members), 0)))
    $query$, tracking.circles_query(changes_query));
end $$;
comment on function tracking.add_days_query is 'Adds a change of the activity to the days, as SQL.';
revoke execute on function tracking.add_days_query from public;

-- Takes away from the days: the events; and the members whose last event of the day it was.
create function tracking.take_days_query(changes_query text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    with changes as materialized (%s),
    left_over as materialized (
      select c.circle, c.member, k.event, k.channel, c.day
      from   (select distinct circle, member, day from changes where circle <> tracking.all_orgs()) as c
      join   tracking.activity as a
      on     a.actor_id = c.member
      and    a.hour >= c.day::timestamp at time zone 'UTC'
      and    a.hour < (c.day + 1)::timestamp at time zone 'UTC'
      join   tracking.kinds as k on k.kind_id = a.kind_id and (c.circle = tracking.everybody() or c.circle = k.org_id)
      union
      select c.circle, c.member, k.event, k.channel, c.day
      from   (select distinct circle, member, day from changes where circle = tracking.all_orgs()) as c
      join   tracking.kinds as k on k.org_id = c.member
      join   tracking.activity as a
      on     a.kind_id = k.kind_id
      and    a.hour >= c.day::timestamp at time zone 'UTC'
      and    a.hour < (c.day + 1)::timestamp at time zone 'UTC'
    ),
    gone as (
      (
        select c.circle, c.member, c.event, c.channel, c.day from changes as c where c.member is not null
        except
        select l.circle, l.member, l.event, l.channel, l.day from left_over as l
      )
      union  all
      (
        select c.circle, c.member, null, null, c.day from changes as c where c.member is not null
        except
        select l.circle, l.member, null, null, l.day from left_over as l
      )
    ),
    taken as (
      select t.circle, t.event, t.channel, t.day, t.page, sum(t.events) as events, bit_or(t.members) as members
      from   (
        select c.circle, n.event, n.channel, c.day, coalesce(m.number >> 12, 0) as page, c.events, null::bit(4096) as members
        from   changes as c
        cross  join lateral (values (c.event, c.channel), (null, null)) as n (event, channel)
        left   join tracking.members as m on (m.circle, m.member) = (c.circle, c.member)
        union  all
        select g.circle, g.event, g.channel, g.day, m.number >> 12, 0, set_bit(0::bit(4096), m.number & 4095, 1)
        from   gone as g
        join   tracking.members as m on (m.circle, m.member) = (g.circle, g.member)
      ) as t
      group  by 1, 2, 3, 4, 5
    )
    update tracking.days as d
    set    events = d.events - t.events,
           members = d.members & ~substring(coalesce(t.members, 0::bit(4096)) for length(d.members))
    from   taken as t
    where  (d.circle, d.day, d.page) = (t.circle, t.day, t.page)
    and    d.event is not distinct from t.event
    and    d.channel is not distinct from t.channel
    $query$, tracking.circles_query(changes_query));
end $$;
comment on function tracking.take_days_query is 'Takes a change of the activity away from the days, as SQL.';
revoke execute on function tracking.take_days_query from public;

-- A change of the activity is one of the days.
create function tracking.keep_days()
  returns trigger
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_added   constant text := 'select a.kind_id, a.hour, a.actor_id, cardinality(a.times) as events from added as a';
  v_removed constant text := 'select r.kind_id, r.hour, r.actor_id, cardinality(r.times) as events from removed as r';
begin
  if TG_OP = 'INSERT' then
    execute tracking.add_days_query(v_added);
  elsif TG_OP = 'UPDATE' then
    execute tracking.add_days_query(format(
      '%s union all select r.kind_id, r.hour, r.actor_id, -cardinality(r.times) from removed as r', v_added));
  else
    execute tracking.take_days_query(v_removed);
    delete from tracking.days as d
    where  d.events = 0
    and    d.day in (select (r.hour at time zone 'UTC')::date from removed as r);
    perform tracking.forget_members(array(select distinct r.actor_id from removed as r), array(
      select distinct k.org_id from removed as r join tracking.kinds as k on k.kind_id = r.kind_id));
  end if;
  return null;
end $$;
comment on function tracking.keep_days is 'Has the days follow where the activity is changed.';
revoke execute on function tracking.keep_days from public;
create trigger added_activity_is_in_days after insert on tracking.activity
  referencing new table as added for each statement execute function tracking.keep_days();
create trigger changed_activity_is_in_days after update on tracking.activity
  referencing old table as removed new table as added for each statement execute function tracking.keep_days();
create trigger removed_activity_is_not_in_days after delete on tracking.activity
  referencing old table as removed for each statement execute function tracking.keep_days();

-- Forgets whoever has no activity any more.
create function tracking.forget_members(actors uuid[], orgs uuid[])
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  delete from tracking.members as m
  where  m.member = any (actors)
  and    m.circle <> tracking.all_orgs()
  and    not exists (
    select
    from   tracking.activity as a
    join   tracking.kinds as k on k.kind_id = a.kind_id
    where  a.actor_id = m.member
    and    (m.circle = tracking.everybody() or m.circle = k.org_id)
  );
  delete from tracking.members as m
  where  m.member = any (orgs)
  and    m.circle = tracking.all_orgs()
  and    not exists (
    select
    from   tracking.activity as a
    join   tracking.kinds as k on k.kind_id = a.kind_id
    where  k.org_id = m.member
  );
end $$;
comment on function tracking.forget_members is 'Takes the numbers from those of these actors and orgs that have no activity any more.';
revoke execute on function tracking.forget_members from public;


-- Asking the days -----------------------------------------------------------------------------------

-- The circle that a question is about, where the days have what it asks for: all of a circle, by no app and no tags. One
-- who may read only some apps of an org sees none of its days.
create function tracking.circle_of(by text, org uuid, app text, tags jsonb)
  returns uuid
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_circle constant uuid := case
    when by = 'actor' then coalesce(org, tracking.everybody())
    when org is null then tracking.all_orgs()
  end;
begin
  if app is null and tracking.asks_rollup(tags) and exists (select from tracking.days as d where d.circle = v_circle) then
    return v_circle;
  end if;
  return null;
end $$;
comment on function tracking.circle_of is 'The circle whose days answer a question by persons or orgs; null where none do.';
revoke execute on function tracking.circle_of from public;
grant execute on function tracking.circle_of to anon, authenticated, service_role, analyst;

-- The days that a question cuts: those amid which it begins, ends, or has a border.
create function tracking.cut_days(moments timestamptz[])
  returns date[]
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return array(select distinct m::date from unnest(moments) as m where isfinite(m) and m <> date_trunc('day', m));
end $$;
comment on function tracking.cut_days is 'The days (UTC) that lie on both sides of a moment.';
revoke execute on function tracking.cut_days from public;
grant execute on function tracking.cut_days to anon, authenticated, service_role, analyst;

-- A subquery of the events that no day answers for, of the days that are cut and of the tail: event, channel,
-- occurred_at, day, member and number. Who has no number yet gets one for the answer, below zero.
create function tracking.loose_query(
  circle uuid, since timestamptz, until timestamptz, events text[], cut date[])
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_org    constant uuid := case when circle not in (tracking.everybody(), tracking.all_orgs()) then circle end;
  v_member constant text := case when circle = tracking.all_orgs() then 'org_id' else 'actor_id' end;
  v_cut    text;
begin
  select string_agg(
           tracking.events_query(v_org, null, greatest(since, d.day), least(until, d.day + 1), '{}', events) || ' union all ', '')
  into   v_cut
  from   unnest(cut) as d (day);
  return format(
    $query$
      select e.event, e.channel, e.occurred_at, (e.occurred_at at time zone 'UTC')::date as day, e.%1$I as member,
             case when e.%1$I is not null then coalesce(m.number, -dense_rank() over (
               partition by m.number is null and e.%1$I is not null order by e.%1$I)) end::integer as number
      from   (
        %2$s
        select u.scope_id, u.org_id, u.app_id, u.event, u.channel, u.surface, u.actor_id, u.occurred_at
        from   tracking.unrolled() as u
        where  %3$s and %4$s and (u.occurred_at at time zone 'UTC')::date <> all (%5$L::date[])
      ) as e
      left   join tracking.members as m on m.circle = %6$L and m.member = e.%1$I%7$s$query$,
    v_member, v_cut, tracking.filters('u', v_org, null, events), tracking.time_filter('u.occurred_at', since, until), cut, circle,
    case when circle = tracking.all_orgs() then ' where e.org_id is not null' end);
end $$;
comment on function tracking.loose_query is
  'A subquery, as SQL, of the events of cut days and of the tail: event, channel, occurred_at, day, member, number.';
revoke execute on function tracking.loose_query from public;
grant execute on function tracking.loose_query to anon, authenticated, service_role, analyst;

-- A subquery of who did what on which day: event, channel, day, page, members, events, and at, when it was or the day
-- began. A key may come more than once. Where no events are named, and none by one, event and channel are null.
create function tracking.days_query(
  circle uuid, since timestamptz, until timestamptz, events text[] default null, by_event boolean default false,
  amid timestamptz default null)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_cut constant date[] := tracking.cut_days(array[since, until, amid]);
begin
  return format(
    $query$
      select d.event, d.channel, d.day, d.page, d.members::bit(4096) as members, d.events,
             d.day::timestamp at time zone 'UTC' as at
      from   tracking.days as d
      where  d.circle = %L and %s and %s and d.day <> all (%L::date[])
      union  all
      select l.event, l.channel, l.day, coalesce(l.number >> 12, 0),
             coalesce(set_bit(0::bit(4096), l.number & 4095, 1), 0::bit(4096)), 1::bigint, l.occurred_at
      from   (%s) as l$query$,
    circle,
    case
      when events is not null then format('d.event = any (%L::text[])', events)
      when by_event then 'd.event is not null'
      else 'd.event is null'
    end,
    tracking.time_filter('d.day', since, until), v_cut, tracking.loose_query(circle, since, until, events, v_cut));
end $$;
comment on function tracking.days_query is
  'A subquery, as SQL, of who of a circle did what on which day: event, channel, day, page, members, events, at.';
revoke execute on function tracking.days_query from public;
grant execute on function tracking.days_query to anon, authenticated, service_role, analyst;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
