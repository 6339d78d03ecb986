-- migrate:up

-- Chapter 8.05: days.
--
-- Who did something on which day: most questions about many people need no more, and those are answered by sets of
-- people, and by what sets have in common. Everybody gets a number, and a set is a string of bits: who is in it has a
-- one in the place of their number. To count those who came back is to "and" two strings then, of a few kilobytes,
-- instead of sorting or hashing what they did.
--
--   members   the numbers: of people in each org, of all people, and of orgs
--   days      for each circle, event and day: how many events, and the set of those who did it; and for each surface, on
--             all days together
--
-- They follow tracking.activity (chapter 8) by triggers, whoever changes it: with events that come late, and with those
-- that are erased. A string has 4,096 places; further members are on further pages.


-- Circles -------------------------------------------------------------------------------------------
-- A circle is an org, whose members are the people who did something for it; or everybody; or all orgs. Circles have
-- kinds of their own (chapter 8), of all apps: the circle is their scope and org. Some of them have a blank name, as no
-- event has: one, all events together, has a blank channel, and one for each surface has that for a channel.

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
  kind_id integer     not null,
  circle  uuid        not null,
  day     date        not null,
  page    integer     not null,
  events  bigint      not null,
  members bit varying not null,
  primary key (kind_id, day, page)
) with (fillfactor = 80);
comment on table tracking.days is 'Who of a circle did what on which day (UTC).';
comment on column tracking.days.kind_id is
  'The kind of event: of all apps, with the circle as its scope. Kinds without a name are all events, and all of a surface.';
comment on column tracking.days.circle is 'The circle, for the policies: a look at the kinds would cost more than most questions.';
comment on column tracking.days.day is 'The day; of a surface, -infinity: all days together.';
comment on column tracking.days.page is 'Which members: those whose numbers divided by 4,096 are this.';
comment on column tracking.days.events is 'How many events they had; on page 0 also those of nobody.';
comment on column tracking.days.members is 'A one for each who was there, in the place of the number modulo 4,096. The zeros behind the last are left out.';

alter table tracking.members enable row level security;
alter table tracking.days enable row level security;
grant select on tracking.members, tracking.days to anon, authenticated, service_role, analyst;
-- Whatever ids a project's own orgs have.
create function tracking.readable_circles()
  returns setof uuid
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query select r.org_id from org.readable() as r (org_id) where r.org_id not in (tracking.everybody(), tracking.all_orgs());
end $$;
comment on function tracking.readable_circles is 'The circles that the caller may read: those of their own orgs.';
revoke execute on function tracking.readable_circles from public;
grant execute on function tracking.readable_circles to anon, authenticated, service_role;

create policy "people read the members of their own orgs" on tracking.members
  for select to anon, authenticated using (circle = any (array(select tracking.readable_circles())));
create policy "people read the days of their own orgs" on tracking.days
  for select to anon, authenticated using (circle = any (array(select tracking.readable_circles())));
create policy "analysts read all members" on tracking.members for select to analyst using (true);
create policy "analysts read all days" on tracking.days for select to analyst using (true);


-- Following the activity ----------------------------------------------------------------------------

-- What a change of the activity is to the circles: a query of circle, event, channel, surface, day, member and events;
-- given one of kind_id, hour, actor_id and events.
create function tracking.circles_query(changes_query text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    select c.circle, a.event, a.channel, a.surface, a.day, c.member, sum(a.events) as events
    from   (
      select k.org_id, k.event, k.channel, k.surface, (a.hour at time zone 'UTC')::date as day, a.actor_id, sum(a.events) as events
      from   (%s) as a
      join   tracking.kinds as k on k.kind_id = a.kind_id
      group  by 1, 2, 3, 4, 5, 6
    ) as a
    cross  join lateral (values
      (a.org_id, a.actor_id),
      (tracking.everybody(), a.actor_id),
      (case when a.org_id is not null then tracking.all_orgs() end, a.org_id)) as c (circle, member)
    where  c.circle is not null
    group  by 1, 2, 3, 4, 5, 6
    $query$, changes_query);
end $$;
comment on function tracking.circles_query is 'A query of what a change of the activity is to the circles, as SQL.';
revoke execute on function tracking.circles_query from public;

-- The sets that a change is one of, as rows n (event, channel, surface, day) beside it: of its event and day, of all
-- events of the day, and of its surface on all days.
create function tracking.sets_of(change text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
      cross  join lateral (
        select *
        from   (values
          (%1$I.event, %1$I.channel, %1$I.surface, %1$I.day),
          ('', '', null, %1$I.day),
          ('', %1$I.surface, %1$I.surface, '-infinity')) as n (event, channel, surface, day)
        where  n.channel is not null
      ) as n$query$, change);
end $$;
comment on function tracking.sets_of is 'The sets that a change of the activity is one of, as a join in SQL.';
revoke execute on function tracking.sets_of from public;

-- Adds sets, a query of circle, event, channel, surface, day, page, events and members, which others may go before; and
-- makes the kinds that a circle lacks.
create function tracking.put_days_query(days_query text, before text default '')
  returns text
  language plpgsql volatile -- what it says, writes
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    with %s
    days as materialized (%s),
    named as materialized (
      select d.circle, d.event, d.channel, d.surface, k.kind_id
      from   (select distinct circle, event, channel, surface from days) as d
      left   join tracking.kinds as k
      on     (k.scope_id, k.event, k.channel) = (d.circle, d.event, d.channel)
      and    k.org_id = d.circle
      and    k.app_id is null
    ),
    made as (
      insert into tracking.kinds as k (scope_id, org_id, event, channel, surface)
      select n.circle, n.circle, n.event, n.channel, n.surface from named as n where n.kind_id is null
      returning k.scope_id, k.event, k.channel, k.kind_id
    ),
    kinds as (
      select n.circle, n.event, n.channel, n.kind_id from named as n where n.kind_id is not null
      union  all
      select m.scope_id, m.event, m.channel, m.kind_id from made as m
    )
    insert into tracking.days as d (kind_id, circle, day, page, events, members)
    select k.kind_id, d.circle, d.day, d.page, d.events, d.members
    from   days as d
    join   kinds as k on (k.circle, k.event, k.channel) = (d.circle, d.event, d.channel)
    order  by 1, 3, 4
    on     conflict on constraint days_pkey do update set
      events = d.events + excluded.events,
      members = (d.members || substring(0::bit(4096) for greatest(length(excluded.members) - length(d.members), 0)))
              | (excluded.members || substring(0::bit(4096) for greatest(length(d.members) - length(excluded.members), 0)))
    $query$, before, days_query);
end $$;
comment on function tracking.put_days_query is 'Adds sets to the days, as SQL.';
revoke execute on function tracking.put_days_query from public;

-- Adds to the days, and gives a number to whoever has none.
create function tracking.add_days_query(changes_query text)
  returns text
  language plpgsql volatile -- what it says, writes
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.put_days_query(
    $query$
      select s.circle, n.event, n.channel, n.surface, n.day, s.page, sum(s.events) as events,
             substring(coalesce(bit_or(s.members), 0::bit(4096)) for coalesce(max(s.places), 0)) as members
      from   sets as s$query$ || tracking.sets_of('s') || $query$
      group  by 1, 2, 3, 4, 5, 6$query$,
    before => format(
    $query$
    changes as materialized (%s),
    strangers as (
      select c.circle, c.member from changes as c where c.member is not null
      except
      select m.circle, m.member from tracking.members as m
      where  (m.circle, m.member) in (select c.circle, c.member from changes as c)
    ),
    latest as materialized (
      select c.circle, coalesce((select max(m.number) from tracking.members as m where m.circle = c.circle), -1) as number
      from   (select distinct circle from strangers) as c
    ),
    numbered as (
      insert into tracking.members as m (circle, member, number)
      select s.circle, s.member, l.number + row_number() over (partition by s.circle)
      from   strangers as s
      join   latest as l on l.circle = s.circle
      returning m.circle, m.member, m.number
    ),
    known as (
      select n.circle, n.member, n.number from numbered as n
      union  all
      select m.circle, m.member, m.number from tracking.members as m
      where  (m.circle, m.member) in (select c.circle, c.member from changes as c)
    ),
    sets as (
      select c.circle, c.event, c.channel, c.surface, c.day, coalesce(k.number >> 12, 0) as page, sum(c.events) as events,
             bit_or(set_bit(0::bit(4096), k.number & 4095, 1)) as members, max(k.number & 4095) / 64 * 64 + 64 as places
      from   changes as c
      left   join known as k on (k.circle, k.member) = (c.circle, c.member)
      group  by 1, 2, 3, 4, 5, 6
    ),$query$, tracking.circles_query(changes_query)));
end $$;
comment on function tracking.add_days_query is 'Adds a change of the activity to the days, as SQL.';
revoke execute on function tracking.add_days_query from public;

-- Takes away from the days: the events, and those members of a set of which nothing else is left that puts them there.
create function tracking.take_days_query(changes_query text)
  returns text
  language plpgsql volatile -- what it says, writes
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    with changes as materialized (%1$s),
    parts as materialized (
      select c.circle, c.member, n.event, n.channel, n.day, sum(c.events) as events
      from   changes as c%2$s
      group  by 1, 2, 3, 4, 5
    ),
    gone as (
      select p.circle, p.member, p.event, p.channel, p.day
      from   parts as p
      left   join lateral (
        select true as is_there
        from   tracking.activity as a
        join   tracking.kinds as k on k.kind_id = a.kind_id and (p.circle = tracking.everybody() or p.circle = k.org_id)
        where  p.circle <> tracking.all_orgs()
        and    a.actor_id = p.member
        and    %3$s
        limit  1
      ) as r on true
      left   join lateral (
        select true as is_there
        from   tracking.kinds as k
        join   tracking.activity as a on a.kind_id = k.kind_id
        where  p.circle = tracking.all_orgs()
        and    k.scope_id = p.member
        and    k.org_id = p.member
        and    %3$s
        limit  1
      ) as o on true
      where  p.member is not null
      and    num_nonnulls(r.is_there, o.is_there) = 0
    ),
    taken as (
      select t.circle, t.event, t.channel, t.day, coalesce(m.number >> 12, 0) as page, sum(t.events) as events,
             bit_or(set_bit(0::bit(4096), m.number & 4095, 1)) filter (where t.events = 0) as members
      from   (
        select p.circle, p.member, p.event, p.channel, p.day, p.events from parts as p
        union  all
        select g.circle, g.member, g.event, g.channel, g.day, 0 from gone as g
      ) as t
      left   join tracking.members as m on (m.circle, m.member) = (t.circle, t.member)
      group  by 1, 2, 3, 4, 5
    )
    update tracking.days as d
    set    events = d.events - t.events,
           members = d.members & ~substring(coalesce(t.members, 0::bit(4096)) for length(d.members))
    from   taken as t
    join   tracking.kinds as k
    on     (k.scope_id, k.event, k.channel) = (t.circle, t.event, t.channel)
    and    k.org_id = t.circle
    and    k.app_id is null
    where  (d.kind_id, d.day, d.page) = (k.kind_id, t.day, t.page)
    $query$, tracking.circles_query(changes_query), tracking.sets_of('c'), $query$
        case
          when p.event <> '' then (k.event, k.channel) = (p.event, p.channel)
          when p.channel <> '' then k.surface = p.channel
          else true
        end
        and a.hour >= p.day::timestamp at time zone 'UTC'
        and a.hour < case when isfinite(p.day) then (p.day + 1)::timestamp at time zone 'UTC' else 'infinity' end$query$);
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
  if current_setting('actorscope.days_follow', true) = 'off' then
    return null; -- whole days go, and are taken away as such: tracking.forget_days (chapter 9)
  elsif TG_OP = 'TRUNCATE' then
    delete from tracking.days;
    delete from tracking.members;
  elsif TG_OP = 'INSERT' then
    execute tracking.add_days_query(v_added);
  elsif TG_OP = 'UPDATE' then
    execute tracking.add_days_query(format(
      '%s union all select r.kind_id, r.hour, r.actor_id, -r.events from (%s) as r', v_added, v_removed));
  else
    execute tracking.take_days_query(v_removed);
    perform tracking.forget_members(
      array(select distinct r.actor_id from removed as r),
      array(select distinct k.org_id from removed as r join tracking.kinds as k on k.kind_id = r.kind_id),
      array(select distinct (r.hour at time zone 'UTC')::date from removed as r) || '-infinity'::date);
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
create trigger emptied_activity_has_no_days after truncate on tracking.activity
  for each statement execute function tracking.keep_days();

-- Counts the sets of the surfaces anew, from those of the events.
create function tracking.recount_surfaces()
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  delete from tracking.days as d where d.day = '-infinity';
  execute tracking.put_days_query(
    $query$
      select d.circle, '' as event, k.surface as channel, k.surface, date '-infinity' as day, d.page, sum(d.events) as events,
             substring(bit_or(d.members::bit(4096)) for max(length(d.members))) as members
      from   tracking.days as d
      join   tracking.kinds as k on k.kind_id = d.kind_id
      where  k.event <> ''
      and    k.surface is not null
      group  by 1, 3, 6$query$);
end $$;
comment on function tracking.recount_surfaces is 'Counts the sets of the surfaces anew, from those of the events.';
revoke execute on function tracking.recount_surfaces from public;

create function tracking.keep_surface_sets()
  returns trigger
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform tracking.recount_surfaces();
  return null;
end $$;
comment on function tracking.keep_surface_sets is 'Has the sets follow where kinds of events are of other surfaces.';
revoke execute on function tracking.keep_surface_sets from public;
create trigger changed_surfaces_have_other_sets after update of surface on tracking.kinds
  for each statement execute function tracking.keep_surface_sets();

-- Forgets days that have no event any more, and whoever has no activity any more.
create function tracking.forget_members(actors uuid[], orgs uuid[], days date[])
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  delete from tracking.days as d
  using  tracking.kinds as k
  where  k.scope_id = any (orgs || tracking.everybody() || tracking.all_orgs())
  and    d.kind_id = k.kind_id
  and    d.day = any (days)
  and    d.events = 0;
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
    where  k.scope_id = m.member
    and    k.org_id = m.member
  );
end $$;
comment on function tracking.forget_members is
  'Forgets what is empty: days of these orgs and of all, and those of these actors and orgs that have no activity any more.';
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
    when org in (tracking.everybody(), tracking.all_orgs()) then null -- no org has these ids
    when by = 'actor' then coalesce(org, tracking.everybody())
    when org is null then tracking.all_orgs()
  end;
begin
  if app is null and tracking.asks_rollup(tags) and exists (
    select from tracking.kinds as k where k.scope_id = v_circle and k.org_id = v_circle and k.app_id is null and k.event = ''
  ) then
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

-- A subquery of the events that no day answers for, of the days that are cut and of the tail: event, channel, surface,
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
      select e.event, e.channel, e.surface, e.occurred_at, (e.occurred_at at time zone 'UTC')::date as day, e.%1$I as member,
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
  'A subquery, as SQL, of the events of cut days and of the tail: event, channel, surface, occurred_at, day, member, number.';
revoke execute on function tracking.loose_query from public;
grant execute on function tracking.loose_query to anon, authenticated, service_role, analyst;

-- A subquery of who did what on which day: event, channel, surface, day, page, members, events, and at, when it was or
-- the day began. A key may come more than once. Events have their names where some are named, or by_surface is true; but
-- surfaces have sets of their own, where no time is named.
create function tracking.days_query(
  circle uuid, since timestamptz, until timestamptz, events text[] default null, by_surface boolean default false,
  amid timestamptz default null)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_cut   constant date[] := tracking.cut_days(array[since, until, amid]);
  v_kinds constant integer[] := array(
    select k.kind_id
    from   tracking.kinds as k
    where  k.scope_id = circle
    and    k.org_id is not null
    and    k.app_id is null
    and    case
             when events is not null then k.event = any (events)
             when not by_surface then k.event = '' and k.channel = ''
             when num_nonnulls(since, until) > 0 then k.event <> ''
             else k.event = '' and k.channel <> ''
           end);
begin
  return format(
    $query$
      select k.event, k.channel, k.surface, d.day, d.page, d.members::bit(4096) as members, d.events,
             d.day::timestamp at time zone 'UTC' as at
      from   tracking.kinds as k
      join   tracking.days as d on d.kind_id = k.kind_id
      where  k.kind_id = any (%1$L::integer[]) and d.kind_id = any (%1$L::integer[])
      and    %2$s and d.day <> all (%3$L::date[])
      union  all
      select l.event, l.channel, l.surface, l.day, coalesce(l.number >> 12, 0),
             coalesce(set_bit(0::bit(4096), l.number & 4095, 1), 0::bit(4096)), 1::bigint, l.occurred_at
      from   (%4$s) as l$query$,
    v_kinds, tracking.time_filter('d.day', since, until), v_cut, tracking.loose_query(circle, since, until, events, v_cut));
end $$;
comment on function tracking.days_query is
  'A subquery, as SQL, of who of a circle did what on which day: event, channel, surface, day, page, members, events, at.';
revoke execute on function tracking.days_query from public;
grant execute on function tracking.days_query to anon, authenticated, service_role, analyst;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
