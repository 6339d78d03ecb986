-- migrate:up

-- Chapter 8.1: questions.
--
-- What analysts ask of the log, one function a question: how far people get (funnel), whether they come back
-- (retention, active), what they do next (paths) and in one go (sessions), how builds fare (build_health), where they
-- are met (surfaces), and how much happens (activity).
--
-- Each puts its query together as text, for the filters and names that it was given, and runs it under the caller's
-- rights: so each is planned for what it was asked, and reads no more of the rollup (chapter 8) than that. To read pages
-- here and there is taken for about as cheap as to read on: else, of an org that has a tenth of the log, the planner
-- would rather read all of it, which takes twice as long, and longer the more the others have.
-- Days, weeks (from Monday on) and months are those of UTC, whatever the session's time zone, which is why they pin it.


-- Arguments -----------------------------------------------------------------------------------------
-- What cannot be answered is refused with a stable message, what is wrong, and the way out.

create function tracking.refuse_argument(message text, detail text, hint text)
  returns void
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  raise invalid_parameter_value using
    message = refuse_argument.message,
    detail = refuse_argument.detail,
    hint = refuse_argument.hint;
end $$;
comment on function tracking.refuse_argument is 'Refuses an argument of a question (22023).';

create function tracking.check_filters(since timestamptz, until timestamptz, tags jsonb)
  returns void
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if since >= until then
    perform tracking.refuse_argument('invalid_range', 'since is not before until.',
      'until is the first moment that does not count any more.');
  elsif (isfinite(since) and since not between '0001-01-01 00:00+00' and '9999-12-31 00:00+00')
  or    (isfinite(until) and until not between '0001-01-01 00:00+00' and '9999-12-31 00:00+00') then
    perform tracking.refuse_argument('invalid_range', 'since and until lie between the years 1 and 9999.',
      'Leave them out, or ask for -infinity and infinity.');
  elsif jsonb_typeof(tags) <> 'object' then
    perform tracking.refuse_argument('invalid_tags', 'tags are not an object.', 'Ask for tags as {"platform": "ios"}.');
  end if;
end $$;
comment on function tracking.check_filters is
  'Refuses filters that nothing could pass. Errors: invalid_range, invalid_tags (22023).';

create function tracking.check_choice(argument text, choice text, choices text[])
  returns void
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if choice is null or choice <> all (choices) then
    perform tracking.refuse_argument('invalid_' || argument,
      format('%s is none of %s, but %s.',
        argument, array_to_string(choices, ', '), coalesce(quote_literal(left(choice, 100)), 'null')),
      format('Ask with %s => %L.', argument, choices[1]));
  end if;
end $$;
comment on function tracking.check_choice is
  'Refuses an argument that is none of its choices. Errors: invalid_<argument> (22023).';

create function tracking.check_event(argument text, event text)
  returns void
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if event is null or btrim(event, E' \t\n\r\f\x0b') = '' then
    perform tracking.refuse_argument('invalid_event', format('%s is blank.', argument), 'Name an event, as it is in the log.');
  end if;
end $$;
comment on function tracking.check_event is 'Refuses a blank name of an event. Errors: invalid_event (22023).';

create function tracking.check_span(message text, argument text, span interval)
  returns void
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if span is null or span <= '0' or span > '100 years' then
    perform tracking.refuse_argument(message, format('%s is not more than nothing and at most 100 years.', argument),
      'Give a span of time such as ''30 minutes'' or ''7 days''.');
  end if;
end $$;
comment on function tracking.check_span is
  'Refuses a span of time that is negative, zero, null, or longer than a century (22023).';

create function tracking.check_number(argument text, number integer, most integer)
  returns void
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if number is null or number not between 1 and most then
    perform tracking.refuse_argument('invalid_' || argument,
      format('%s is not from 1 to %s.', argument, most), format('Ask with %s => 3.', argument));
  end if;
end $$;
comment on function tracking.check_number is 'Refuses a number that is not from 1 to a most. Errors: invalid_<argument> (22023).';

revoke execute on function
  tracking.refuse_argument, tracking.check_filters, tracking.check_choice, tracking.check_event, tracking.check_span,
  tracking.check_number
  from public;
grant execute on function
  tracking.refuse_argument, tracking.check_filters, tracking.check_choice, tracking.check_event, tracking.check_span,
  tracking.check_number
  to anon, authenticated, service_role, analyst;


-- How far people get --------------------------------------------------------------------------------

create type analytics.funnel_step as (
  breakdown text, step integer, event text, subjects bigint, conversion numeric, step_conversion numeric,
  median_seconds double precision);
comment on type analytics.funnel_step is 'How many got as far as a step of a funnel.';
comment on column analytics.funnel_step.breakdown is 'The tag''s value; null where the event had none, or no tag was asked for.';
comment on column analytics.funnel_step.step is 'From 1 on.';
comment on column analytics.funnel_step.subjects is 'How many persons, or organizations, came at least so far.';
comment on column analytics.funnel_step.conversion is
  'Which part of those of the first step, from 0 to 1; null where there were none.';
comment on column analytics.funnel_step.step_conversion is
  'Which part of those of the step before, from 0 to 1; null where there were none.';
comment on column analytics.funnel_step.median_seconds is 'From the step before; null for the first.';

create function tracking.check_steps(steps text[])
  returns void
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_step text;
begin
  if coalesce(cardinality(steps), 0) not between 2 and 20 or array_ndims(steps) > 1 then
    perform tracking.refuse_argument('invalid_steps',
      case
        when array_ndims(steps) > 1 then 'A funnel''s steps are a list, not a table.'
        else format('A funnel has 2 to 20 steps, not %s.', coalesce(cardinality(steps), 0))
      end,
      'Name the events in their order, as in array[''Build Requested'', ''Build Succeeded''].');
  end if;
  foreach v_step in array steps loop
    if v_step is null or btrim(v_step, E' \t\n\r\f\x0b') = '' then
      perform tracking.refuse_argument('invalid_steps', 'A step is blank.', 'Name an event for each step, as it is in the log.');
    end if;
  end loop;
end $$;
comment on function tracking.check_steps is 'Refuses what is no funnel. Errors: invalid_steps (22023).';
revoke execute on function tracking.check_steps from public;
grant execute on function tracking.check_steps to anon, authenticated, service_role, analyst;

-- The query of a funnel. For each subject it has the times of each event in an array, in order. From a beginning, the
-- next step is at the first time after it: a search in the array, by halves, instead of another pass over the events.
-- (Each is fenced with offset 0, or it would be done again for each step that builds on it.)
create function tracking.funnel_query(
  steps text[], within interval, by text, breakdown text, org uuid, app text, since timestamptz, until timestamptz, tags jsonb)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_subject constant text := by || '_id';
  v_attempt text := 'select unnest(s.times_1) as at_1';
  v_times   text[];
  v_reached text[];
  v_counts  text[] := array['count(*)'];
  v_seconds text[] := array['null::double precision'];
begin
  for n in 1 .. cardinality(steps) loop
    if array_position(steps, steps[n]) = n then
      v_times := v_times || format(
        'array_agg(e.occurred_at order by e.occurred_at) filter (where e.event = %L) as times_%s', steps[n], n);
    end if;
    continue when n = 1;
    v_attempt := format(
      'select *, s.times_%1$s[width_bucket(at_%2$s, s.times_%1$s) + 1] as at_%3$s from (%4$s) as step_%2$s offset 0',
      array_position(steps, steps[n]), n - 1, n, v_attempt);
    v_reached := v_reached || format('nullif(a.at_%s - a.at_1 <= %L, false)', n, within);
    v_counts := v_counts || format('count(*) filter (where b.reached >= %s)', n);
    v_seconds := v_seconds || format(
      'percentile_cont(0.5) within group (order by date_part(''epoch'', b.at_%1$s - b.at_%2$s)) '
      'filter (where b.reached >= %1$s)', n, n - 1);
  end loop;
  return format(
    $query$
    with subjects as (
      select e.%1$I as subject, %2$s
      from   (%3$s) as e
      where  e.%1$I is not null
      group  by e.%1$I
      having count(*) filter (where e.event = %4$L) > 0
    ),
    best as (
      select s.subject, a.*
      from   subjects as s
      cross  join lateral (
        select a.*, 1 + num_nonnulls(%5$s) as reached
        from   (%6$s) as a
        order  by reached desc, a.at_1
        limit  1
      ) as a
    ),
    counted as (
      select %7$s as breakdown, array[%8$s] as subjects, array[%9$s] as seconds
      from   best as b %10$s
    )
    select c.breakdown, s.step::integer, s.event, s.subjects,
           round(s.subjects::numeric / nullif(c.subjects[1], 0), 4),
           round(s.subjects::numeric / nullif(c.subjects[greatest(s.step - 1, 1)], 0), 4),
           s.seconds
    from   counted as c
    cross  join unnest(%11$L::text[], c.subjects, c.seconds) with ordinality as s (event, subjects, seconds, step)
    order  by c.subjects[1] desc, c.breakdown collate "C", s.step
    $query$,
    v_subject, array_to_string(v_times, ', '), tracking.events_query(org, app, since, until, tags, steps), steps[1],
    array_to_string(v_reached, ', '), v_attempt,
    case when breakdown is null then 'null::text' else 'v.value' end,
    array_to_string(v_counts, ', '), array_to_string(v_seconds, ', '),
    case when breakdown is not null then format(
      $query$
      left   join (
        select e.%1$I as subject, e.occurred_at, min(e.tags ->> %2$L collate "C") as value
        from   (%3$s) as e
        group  by 1, 2
      ) as v on v.subject = b.subject and v.occurred_at = b.at_1
      group  by v.value$query$,
      v_subject, breakdown, tracking.events_query(org, app, since, until, tags, steps[1:1], true)) end,
    steps);
end $$;
comment on function tracking.funnel_query is 'The query that answers analytics.funnel.';
revoke execute on function tracking.funnel_query from public;
grant execute on function tracking.funnel_query to anon, authenticated, service_role, analyst;

create function analytics.funnel(
  steps text[], within interval default '7 days', by text default 'actor', breakdown text default null,
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null,
  tags jsonb default '{}')
  returns setof analytics.funnel_step
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
  set enable_nestloop = off -- under policies the planner expects few events, and would compare each with each
  set jit = off
as $$
begin
  perform tracking.check_steps(steps);
  perform tracking.check_span('invalid_window', 'within', within);
  perform tracking.check_choice('by', by, '{actor,org}');
  perform tracking.check_filters(since, until, tags);
  return query execute tracking.funnel_query(
    array(select unnest(steps)), within, by, breakdown, org, app, since, until, tags);
end $$;
comment on function analytics.funnel is
  'How many persons (by => ''org'': organizations) got through events, one strictly after the other, all within a span of time. '
  'A subject counts by its best attempt: the one with most steps, and the first of these; a step is taken at the first occasion. '
  'Broken down by a tag of the event that the best attempt began with. '
  'Errors: invalid_steps, invalid_window, invalid_by, invalid_range, invalid_tags (22023).';


-- Whether they come back ----------------------------------------------------------------------------

-- The period of a time, as an expression: as date_trunc has it, but for its price.
create function tracking.period_expression(of text, period text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case period
    when 'month' then format('date_trunc(''month'', %s, ''UTC'')', of)
    else format('date_bin(%L, %s, ''1969-12-29 00:00+00'')', '1 ' || period, of) -- a Monday before all events
  end;
end $$;
comment on function tracking.period_expression is 'The beginning of the hour, day, week (from Monday on) or month of a time (UTC), as SQL.';
revoke execute on function tracking.period_expression from public;
grant execute on function tracking.period_expression to anon, authenticated, service_role, analyst;

create type analytics.retention_period as (cohort date, size bigint, period integer, subjects bigint, share numeric);
comment on type analytics.retention_period is 'How many of a cohort came back in a period.';
comment on column analytics.retention_period.cohort is 'The period in which they did the first event for the first time: its first day (UTC).';
comment on column analytics.retention_period.size is 'How many they are.';
comment on column analytics.retention_period.period is '0 is the cohort''s own period, 1 the next one.';
comment on column analytics.retention_period.subjects is 'How many of them did the return event in that period.';
comment on column analytics.retention_period.share is 'Which part of them that is, from 0 to 1.';

-- Of each cohort: how many begin in a period, and how many return in it, as a query.
create function tracking.retention_query(
  first_event text, return_event text, period text, by text, org uuid, app text, since timestamptz, until timestamptz, tags jsonb)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    with seen as (
      select h.%1$I as subject, h.event, (%2$s)::date as period, min(h.first_at) as first_at, max(h.last_at) as last_at
      from   (%3$s) as h
      where  h.%1$I is not null
      group  by 1, 2, 3
    ),
    told as (
      select s.event, s.period, s.last_at,
             min(s.period) filter (where s.event = %4$L) over w as cohort, min(s.first_at) filter (where s.event = %4$L) over w as begun_at
      from   seen as s
      window w as (partition by s.subject)
    )
    select t.cohort, t.period, count(*) filter (where t.event = %4$L and t.period = t.cohort) as begun,
           count(*) filter (where t.event = %5$L and t.last_at >= t.begun_at) as returned
    from   told as t
    where  t.cohort is not null
    group  by 1, 2
    $query$,
    by || '_id', tracking.period_expression('h.hour', period), tracking.hours_query(org, app, since, until, tags, array[first_event, return_event]),
    first_event, return_event);
end $$;
comment on function tracking.retention_query is 'The query that answers analytics.retention, from hours.';

-- The same, by sets. Who begins and returns on one day, and not later in the period, is asked for the times of that day:
-- only they tell whether the return came after the beginning.
create function tracking.retention_sets_query(
  circle uuid, first_event text, return_event text, period text, periods integer, org uuid, since timestamptz, until timestamptz)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return case when circle is not null then format(
    $query$
    with days as materialized (
      select (%1$s)::date as period, d.day, d.page, coalesce(bit_or(d.members) filter (where d.event = %2$L), 0::bit(4096)) as begun,
             coalesce(bit_or(d.members) filter (where d.event = %3$L), 0::bit(4096)) as returned
      from   (%4$s) as d
      group  by 1, 2, 3
    ),
    told as materialized (
      select d.period, d.day, d.page, d.returned,
             d.begun & ~coalesce(bit_or(d.begun) over (partition by d.page order by d.day rows between unbounded preceding and 1 preceding), 0::bit(4096)) as begun,
             coalesce(bit_or(d.returned) over (
               partition by d.page, d.period order by d.day desc rows between unbounded preceding and 1 preceding), 0::bit(4096)) as returned_later
      from   days as d
    ),
    sets as materialized (
      select t.period, t.page, bit_or(t.begun) as begun, bit_or(t.returned) as returned, sum(bit_count(t.begun))::bigint as size,
             sum(bit_count(t.begun & case when %2$L = %3$L then t.begun else t.returned_later end))::bigint as returned_at_once
      from   told as t
      group  by 1, 2
    ),
    unsure as materialized (%5$s)
    select s.period as cohort, s.period, sum(s.size)::bigint as begun,
           (sum(s.returned_at_once) + (select count(*) from unsure as u where u.period = s.period and u.has_returned))::bigint as returned
    from   sets as s
    group  by s.period
    union  all
    select s.period, r.period, 0, sum(bit_count(s.begun & r.returned))::bigint
    from   sets as s
    join   sets as r on r.page = s.page and r.period > s.period and r.period < s.period + %6$s * interval %7$L
    group  by 1, 2
    $query$,
    tracking.period_expression('d.at', period), first_event, return_event,
    tracking.days_query(circle, since, until, array[first_event, return_event]),
    tracking.unsure_query(circle, first_event, return_event, org, since, until), periods, '1 ' || period) end;
end $$;
comment on function tracking.retention_sets_query is 'The query that answers analytics.retention, from days; null where there is no circle.';

-- Who began and returned on one day, and not later in the period: in which, and whether the return came last.
create function tracking.unsure_query(
  circle uuid, first_event text, return_event text, org uuid, since timestamptz, until timestamptz)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_loose constant text := tracking.loose_query(
    circle, since, until, array[first_event, return_event], tracking.cut_days(array[since, until]));
begin
  return format(
    $query$
      with loose as materialized (%1$s),
      shared as materialized (
        select t.period, t.day, t.page, t.begun & t.returned & ~t.returned_later as members from told as t where %2$L <> %3$L
      ),
      chunks as materialized (
        select s.period, s.day, s.page, c.place, c.members
        from   shared as s
        cross  join lateral (
          select p.place, substring(s.members from p.place + 1 for 64) as members from generate_series(0, 4095, 64) as p (place)
        ) as c
        where  bit_count(s.members) > 0
        and    bit_count(c.members) > 0
      ),
      asked as (
        select c.period, c.day, m.member
        from   chunks as c
        cross  join generate_series(0, 63) as p (place)
        join   (
          select o.number, o.member from tracking.members as o where o.circle = %4$L
          union  all
          select distinct l.number, l.member from loose as l where l.number < 0
        ) as m on m.number = (c.page << 12) + c.place + p.place
        where  get_bit(c.members, p.place) = 1
      )
      select a.period, (
        select max(x.occurred_at) filter (where x.event = %3$L) >= min(x.occurred_at) filter (where x.event = %2$L)
        from   (
          select k.event, unnest(h.times) as occurred_at
          from   tracking.activity as h
          join   tracking.kinds as k on k.kind_id = h.kind_id
          where  %5$s and k.event in (%2$L, %3$L)
          and    h.hour >= a.day::timestamp at time zone 'UTC' and h.hour < (a.day + 1)::timestamp at time zone 'UTC'
          union  all
          select l.event, l.occurred_at from loose as l where l.member = a.member and l.day = a.day
        ) as x
        where  %6$s
      ) as has_returned
      from   asked as a$query$,
    v_loose, first_event, return_event, circle,
    case
      when circle = tracking.all_orgs() then 'k.scope_id = a.member and k.org_id = a.member'
      else 'h.actor_id = a.member and ' || tracking.filters('k', org, null, null)
    end,
    tracking.time_filter('x.occurred_at', since, until));
end $$;
comment on function tracking.unsure_query is 'A subquery of who began and returned on one day only, for analytics.retention.';
revoke execute on function tracking.retention_query, tracking.retention_sets_query, tracking.unsure_query from public;
grant execute on function tracking.retention_query, tracking.retention_sets_query, tracking.unsure_query to anon, authenticated, service_role, analyst;

create function analytics.retention(
  first_event text, return_event text default null, period text default 'week', by text default 'actor', periods integer default 12,
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null, tags jsonb default '{}')
  returns setof analytics.retention_period
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
  set timezone = 'UTC'
as $$
begin
  return_event := coalesce(return_event, first_event);
  perform tracking.check_event('first_event', first_event);
  perform tracking.check_event('return_event', return_event);
  perform tracking.check_choice('period', period, '{day,week,month}');
  perform tracking.check_choice('by', by, '{actor,org}');
  perform tracking.check_number('periods', periods, 1000);
  perform tracking.check_filters(since, until, tags);
  return query execute format(
    $query$
    with counted as (%1$s),
    cohorts as (
      select c.cohort, sum(c.begun)::bigint as size from counted as c where c.begun > 0 group by c.cohort
    )
    select c.cohort, c.size, n.period, coalesce(r.returned, 0), round(coalesce(r.returned, 0)::numeric / c.size, 4)
    from   cohorts as c
    cross  join generate_series(0, %2$s - 1) as n (period)
    cross  join lateral (select (c.cohort + n.period * interval %3$L)::date) as p (first_day)
    left   join counted as r on r.cohort = c.cohort and r.period = p.first_day
    where  n.period = 0 or p.first_day <= now() and coalesce(p.first_day < %4$L::timestamptz, true)
    order  by c.cohort, n.period
    $query$,
    coalesce(
      tracking.retention_sets_query(tracking.circle_of(by, org, app, tags), first_event, return_event, period, periods, org, since, until),
      tracking.retention_query(first_event, return_event, period, by, org, app, since, until, tags)),
    periods, '1 ' || period, until);
end $$;
comment on function analytics.retention is
  'Which part of those who did one event for the first time in a day, week or month did another one, or the same, in the periods after that. '
  'Errors: invalid_event, invalid_period, invalid_by, invalid_periods, invalid_range, invalid_tags (22023).';

-- The periods of an answer, as a subquery of the periods that something was counted in: from since, or else the first of
-- these, until the last. None begins before the log can (1970), or more than a day ahead, which the log refuses.
create function tracking.periods_query(period text, since timestamptz, until timestamptz, counted text)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return format(
    'select generate_series(coalesce(%s, min(c.period)), coalesce(%s, max(c.period)), %L) as period from %s as c',
    tracking.period_expression(quote_nullable(case when isfinite(since) then greatest(since, '1970-01-01') end) || '::timestamptz', period),
    tracking.period_expression(quote_nullable(case when isfinite(until) then least(until - interval '1 microsecond', now() + interval '1 day') end) || '::timestamptz', period),
    '1 ' || period, counted);
end $$;
comment on function tracking.periods_query is 'A subquery, as SQL, of the periods from since until until, with those that have nothing.';
revoke execute on function tracking.periods_query from public;
grant execute on function tracking.periods_query to anon, authenticated, service_role, analyst;

create type analytics.active_period as (period date, active bigint, new bigint, "returning" bigint, resurrected bigint);
comment on type analytics.active_period is 'How many were there in a period; active = new + returning + resurrected.';
comment on column analytics.active_period.period is 'Its first day (UTC).';
comment on column analytics.active_period.active is 'How many did something.';
comment on column analytics.active_period.new is 'Of these, who had never been seen before.';
comment on column analytics.active_period."returning" is 'Of these, who had been there in the period before as well.';
comment on column analytics.active_period.resurrected is 'Of these, who had been seen before, but not in the period before.';

-- How many were active in each period, as a query: of each subject it has the periods in order.
create function tracking.active_query(
  by text, period text, event text, org uuid, app text, since timestamptz, until timestamptz, tags jsonb)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return format(
    $query$
    with seen as (
      select h.%1$I as subject, %2$s as period, %3$s as counts
      from   (%4$s) as h
      where  h.%1$I is not null
      group  by 1, 2
    ),
    told as (
      select s.period, s.counts, lag(s.period) over (partition by s.subject order by s.period) as last_period from seen as s
    )
    select t.period, count(*) as active, count(*) filter (where t.last_period is null) as new,
           count(*) filter (where t.last_period = t.period - interval %5$L) as "returning"
    from   told as t
    where  t.counts
    group  by t.period
    $query$,
    by || '_id', tracking.period_expression('h.hour', period), case when since is null then 'true' else format('max(h.last_at) >= %L', since) end,
    tracking.hours_query(org, app, null, until, tags, case when event is not null then array[event] end), '1 ' || period);
end $$;
comment on function tracking.active_query is 'The query that answers analytics.active, from hours.';

-- The same, by sets: those of the period, of the one before, and of all before.
create function tracking.active_sets_query(circle uuid, period text, event text, since timestamptz, until timestamptz)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return case when circle is not null then format(
    $query$
    with sets as (
      select %1$s as period, d.page, bit_or(d.members) as members, bit_or(d.members) filter (where %2$s) as counting
      from   (%3$s) as d
      group  by 1, 2
    ),
    told as (
      select s.period, s.counting, coalesce(bit_or(s.members) over (w rows between unbounded preceding and 1 preceding), 0::bit(4096)) as before,
             case when lag(s.period) over w = s.period - interval %4$L then lag(s.members) over w else 0::bit(4096) end as last
      from   sets as s
      window w as (partition by s.page order by s.period)
    )
    select t.period, sum(bit_count(t.counting))::bigint as active, sum(bit_count(t.counting & ~t.before))::bigint as new,
           sum(bit_count(t.counting & t.last))::bigint as "returning"
    from   told as t
    group  by t.period
    having sum(bit_count(t.counting)) > 0
    $query$,
    tracking.period_expression('d.at', period), tracking.time_filter('d.at', since, null),
    tracking.days_query(circle, null, until, case when event is not null then array[event] end, amid => since), '1 ' || period) end;
end $$;
comment on function tracking.active_sets_query is 'The query that answers analytics.active, from days; null where there is no circle.';
revoke execute on function tracking.active_query, tracking.active_sets_query from public;
grant execute on function tracking.active_query, tracking.active_sets_query to anon, authenticated, service_role, analyst;

create function analytics.active(
  by text default 'actor', period text default 'day', event text default null,
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null, tags jsonb default '{}')
  returns setof analytics.active_period
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
  set timezone = 'UTC'
as $$
begin
  perform tracking.check_choice('by', by, '{actor,org}');
  perform tracking.check_choice('period', period, '{day,week,month}');
  if event is not null then
    perform tracking.check_event('event', event);
  end if;
  perform tracking.check_filters(since, until, tags);
  return query execute format(
    $query$
    with counted as (%1$s)
    select p.period::date, coalesce(c.active, 0), coalesce(c.new, 0), coalesce(c."returning", 0), coalesce(c.active - c.new - c."returning", 0)
    from   (%2$s) as p
    left   join counted as c using (period)
    order  by 1
    $query$,
    coalesce(
      tracking.active_sets_query(tracking.circle_of(by, org, app, tags), period, event, since, until),
      tracking.active_query(by, period, event, org, app, since, until, tags)),
    tracking.periods_query(period, since, until, 'counted'));
end $$;
comment on function analytics.active is
  'How many persons (by => ''org'': organizations) did something in each day, week or month, and how many of them were new, returning or resurrected: '
  'that is told by all that the other filters let through, also from before since. '
  'Errors: invalid_by, invalid_period, invalid_event, invalid_range, invalid_tags (22023).';


-- What they do next ---------------------------------------------------------------------------------

create type analytics.path_step as (
  step integer, source text, target text, paths bigint, actors bigint, median_seconds double precision);
comment on type analytics.path_step is 'How many paths went from one event to the next one.';
comment on column analytics.path_step.step is '1 leads away from the event that paths begin with.';
comment on column analytics.path_step.source is 'The event that they were at.';
comment on column analytics.path_step.target is 'The event that came next; null where nothing did.';
comment on column analytics.path_step.actors is 'How many persons'' paths these are.';
comment on column analytics.path_step.median_seconds is 'From the one to the other; null where nothing came.';

-- Where a person's paths begin, by the places of the events that may begin one, in order: at the first, and then at the
-- first that is not on the path before.
create function tracking.path_starts(places bigint[], depth integer)
  returns bigint[]
  language plpgsql immutable parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_starts bigint[] := '{}';
  v_end    bigint := 0;
  v_place  bigint;
begin
  foreach v_place in array places loop
    if v_place > v_end then
      v_starts := v_starts || v_place;
      v_end := v_place + depth;
    end if;
  end loop;
  return v_starts;
end $$;
comment on function tracking.path_starts is 'Where a person''s paths begin, by the places of the events that may begin one.';
revoke execute on function tracking.path_starts from public;
grant execute on function tracking.path_starts to anon, authenticated, service_role, analyst;

-- Events are numbered in their order, and a gap counts as more places than a path is long. So what is at most so many
-- places after a path's beginning is on it. (Only what comes soon enough after an event that may begin one is looked at:
-- before the rest is sorted, it is left out.)
create function analytics.paths(
  from_event text, depth integer default 3, gap interval default '30 minutes',
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null,
  tags jsonb default '{}')
  returns setof analytics.path_step
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
  set enable_nestloop = off -- under policies the planner expects few events, and would compare each with each
  set jit = off
as $$
begin
  perform tracking.check_event('from_event', from_event);
  perform tracking.check_number('depth', depth, 20);
  perform tracking.check_span('invalid_gap', 'gap', gap);
  perform tracking.check_filters(since, until, tags);
  return query execute format(
    $query$
    with begun as (
      select e.actor_id, array_agg(e.occurred_at order by e.occurred_at) as times
      from   (%2$s) as e
      where  e.actor_id is not null
      group  by e.actor_id
    ),
    ordered as (
      select e.actor_id, e.occurred_at, e.event, row_number() over w as number,
             lag(e.event) over w as source, e.occurred_at - lag(e.occurred_at) over w as since_source,
             coalesce(lead(e.occurred_at) over w - e.occurred_at > %4$L, true) as is_last
      from   (%1$s) as e
      join   begun as b on b.actor_id = e.actor_id
      where  e.occurred_at - b.times[width_bucket(e.occurred_at, b.times)] <= %5$s * interval %4$L
      window w as (partition by e.actor_id order by e.occurred_at, e.event collate "C")
    ),
    placed as (
      select o.actor_id, o.event, o.source, o.since_source, o.is_last,
             o.number + %3$s * count(*) filter (where o.since_source > %4$L) over (
               partition by o.actor_id order by o.occurred_at, o.event collate "C" rows unbounded preceding) as place
      from   ordered as o
    ),
    starts as (
      select p.actor_id, tracking.path_starts(array_agg(p.place order by p.place), %5$s) as places
      from   placed as p
      where  p.event = %6$L
      group  by p.actor_id
    )
    select s.step::integer, s.source, s.target, count(*), count(distinct p.actor_id),
           percentile_cont(0.5) within group (order by s.seconds)
    from   placed as p
    join   starts as b on b.actor_id = p.actor_id
    cross  join lateral (select p.place - b.places[width_bucket(p.place, b.places)] as step offset 0) as n
    cross  join lateral (
      select n.step, p.source, p.event, date_part('epoch', p.since_source) where n.step between 1 and %5$s
      union  all
      select n.step + 1, p.event, null, null where p.is_last and n.step < %5$s
    ) as s (step, source, target, seconds)
    group  by 1, 2, 3
    order  by 1, 4 desc, s.source collate "C", s.target collate "C"
    $query$,
    tracking.events_query(org, app, since, until, tags), tracking.events_query(org, app, since, until, tags, array[from_event]),
    depth + 1, gap, depth, from_event);
end $$;
comment on function analytics.paths is
  'What persons did after an event: an event begins a path, unless it is on one; the path goes on while the person''s '
  'next event comes within a gap, for a number of steps. Events of the same moment are in the order of their names. '
  'Errors: invalid_event, invalid_depth, invalid_gap, invalid_range, invalid_tags (22023).';

create type analytics.session as (
  actor_id uuid, started_at timestamptz, ended_at timestamptz, seconds double precision, events bigint,
  first_event text, last_event text, surfaces text[], orgs uuid[]);
comment on type analytics.session is 'What a person did in one go.';
comment on column analytics.session.seconds is 'From its first event to its last one.';
comment on column analytics.session.surfaces is 'Where its events happened.';
comment on column analytics.session.orgs is 'The organizations that they were for.';

-- Of a session, the events matter with which it begins and ends, and those that happen elsewhere than the one before;
-- the others are counted by their numbers.
create function analytics.sessions(
  gap interval default '30 minutes',
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null, tags jsonb default '{}')
  returns setof analytics.session
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
as $$
begin
  perform tracking.check_span('invalid_gap', 'gap', gap);
  perform tracking.check_filters(since, until, tags);
  return query execute format(
    $query$
    with ordered as (
      select e.actor_id, e.occurred_at, e.event, e.org_id, e.surface, row_number() over w as number,
             lag(e.org_id) over w as last_org_id, lag(e.surface) over w as last_surface,
             coalesce(e.occurred_at - lag(e.occurred_at) over w > %2$L, true) as is_first,
             coalesce(lead(e.occurred_at) over w - e.occurred_at > %2$L, true) as is_last
      from   (%1$s) as e
      where  e.actor_id is not null
      window w as (partition by e.actor_id order by e.occurred_at, e.event collate "C")
    ),
    told as (
      select o.*, o.surface is not null and (o.is_first or o.surface is distinct from o.last_surface) as tells_surface,
             o.org_id is not null and (o.is_first or o.org_id is distinct from o.last_org_id) as tells_org
      from   ordered as o
    ),
    seated as (
      select t.*, max(t.number) filter (where t.is_first) over (
               partition by t.actor_id order by t.occurred_at, t.event collate "C" rows unbounded preceding) as session
      from   told as t
      where  t.is_first or t.is_last or t.tells_surface or t.tells_org
    ),
    sessions as (
      select s.actor_id, min(s.occurred_at) as started_at, max(s.occurred_at) as ended_at, max(s.number) - s.session + 1 as events,
             min(s.event) filter (where s.is_first) as first_event, min(s.event) filter (where s.is_last) as last_event,
             array_agg(s.surface) filter (where s.tells_surface) as surfaces, array_agg(s.org_id) filter (where s.tells_org) as orgs
      from   seated as s
      group  by s.actor_id, s.session
    )
    select s.actor_id, s.started_at, s.ended_at, date_part('epoch', s.ended_at - s.started_at), s.events, s.first_event, s.last_event,
           case when cardinality(s.surfaces) > 1 then array(select distinct u.surface collate "C" from unnest(s.surfaces) as u (surface) order by 1) else coalesce(s.surfaces, '{}') end,
           case when cardinality(s.orgs) > 1 then array(select distinct u.org_id from unnest(s.orgs) as u (org_id) order by 1) else coalesce(s.orgs, '{}') end
    from   sessions as s
    order  by s.started_at desc, s.actor_id
    $query$,
    tracking.events_query(org, app, since, until, tags), gap);
end $$;
comment on function analytics.sessions is
  'What persons did in one go, the newest first: events, none more than a gap after the one before. Events of the same moment are in the order of their names. '
  'Errors: invalid_gap, invalid_range, invalid_tags (22023).';


-- How builds fare -----------------------------------------------------------------------------------

create type analytics.build_period as (
  period date, by_value text, builds bigint, succeeded bigint, failed bigint, success_rate numeric,
  p50_run_seconds double precision, p95_run_seconds double precision, p50_queue_seconds double precision, p95_queue_seconds double precision,
  failure_categories jsonb, median_seconds_to_green double precision, flakiness numeric);
comment on type analytics.build_period is 'How the builds fared that ended in a period.';
comment on column analytics.build_period.period is 'Its first day (UTC).';
comment on column analytics.build_period.by_value is 'The app, org, platform, build mode or person; null where it is about all.';
comment on column analytics.build_period.builds is 'How many ended, in whatever way.';
comment on column analytics.build_period.failed is 'How many failed or timed out.';
comment on column analytics.build_period.success_rate is 'succeeded / (succeeded + failed); null where there were none.';
comment on column analytics.build_period.failure_categories is 'How many failed for each category of reasons.';
comment on column analytics.build_period.median_seconds_to_green is
  'For an app, platform and build mode that turned green in the period: from the end of the first failure since the last success to the end of the success.';
comment on column analytics.build_period.flakiness is
  'Which part of the failures was followed by a success when asked again: the next build of the app, platform and build mode was requested within an hour of the failure''s end, and succeeded.';

create function analytics.build_health(
  period text default 'week', by text default null,
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null, tags jsonb default '{}')
  returns setof analytics.build_period
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
  set timezone = 'UTC'
as $$
begin
  perform tracking.check_choice('period', period, '{day,week,month}');
  if by is not null then
    perform tracking.check_choice('by', by, '{app,org,platform,build_mode,actor}');
  end if;
  perform tracking.check_filters(since, until, tags);
  return query execute format(
    $query$
    with builds as (
      select b.build_id, b.org_id, b.app_id, b.platform, b.build_mode, b.actor_id, b.result, b.failure_category, b.finished_at,
             b.run_seconds, b.queue_seconds, b.result in ('failure', 'timeout') as has_failed,
             lead(b.result) over w = 'success' and lead(b.requested_at) over w <= b.finished_at + interval '1 hour' as went_green_at_once
      from   analytics.builds as b
      where  %1$s
      window w as (partition by b.app_id, b.platform, b.build_mode order by b.requested_at, b.build_id)
    ),
    ended as (
      select b.*, count(*) filter (where b.result = 'success') over (
               partition by b.app_id, b.platform, b.build_mode order by b.finished_at, b.build_id rows between unbounded preceding and 1 preceding) as streak
      from   builds as b
      where  b.result is not null
    ),
    told as (
      select (%2$s)::date as period, %3$s as by_value, e.*,
             e.finished_at - min(e.finished_at) filter (where e.has_failed) over (partition by e.app_id, e.platform, e.build_mode, e.streak) as red
      from   ended as e
    ),
    categories as (
      select c.period, c.by_value, jsonb_object_agg(c.failure_category, c.builds) as failure_categories
      from   (
        select t.period, t.by_value, t.failure_category, count(*) as builds
        from   told as t
        where  %4$s and t.has_failed
        group  by 1, 2, 3
      ) as c
      group  by 1, 2
    )
    select s.period, s.by_value, s.builds, s.succeeded, s.failed, round(s.succeeded / nullif(s.succeeded + s.failed, 0)::numeric, 4),
           s.run_seconds[1], s.run_seconds[2], s.queue_seconds[1], s.queue_seconds[2], coalesce(c.failure_categories, '{}'),
           s.seconds_to_green, round(s.green_at_once / nullif(s.failed, 0)::numeric, 4)
    from   (
      select t.period, t.by_value, count(*) as builds, count(*) filter (where t.result = 'success') as succeeded,
             count(*) filter (where t.has_failed) as failed, count(*) filter (where t.has_failed and t.went_green_at_once) as green_at_once,
             percentile_cont('{0.5, 0.95}'::double precision[]) within group (order by t.run_seconds) as run_seconds,
             percentile_cont('{0.5, 0.95}'::double precision[]) within group (order by t.queue_seconds) as queue_seconds,
             percentile_cont(0.5) within group (order by date_part('epoch', t.red)) filter (where t.result = 'success') as seconds_to_green
      from   told as t
      where  %4$s
      group  by t.period, t.by_value
    ) as s
    left   join categories as c on c.period = s.period and c.by_value is not distinct from s.by_value
    order  by s.period, s.by_value collate "C"
    $query$,
    concat_ws(' and ', 'true',
      case when org is not null then format('b.org_id = %L', org) end,
      case when app is not null then format('b.app_id = %L', app) end,
      case when tags <> '{}' then format(
        $query$jsonb_build_object('app_id', b.app_id, 'org_id', b.org_id, 'build_id', b.build_id, 'platform', b.platform, 'build_mode', b.build_mode) @> %L$query$,
        tags) end),
    tracking.period_expression('e.finished_at', period),
    case when by is null then 'null::text' when by in ('platform', 'build_mode') then format('e.%I', by) else format('e.%I::text', by || '_id') end,
    tracking.time_filter('t.finished_at', since, until));
end $$;
comment on function analytics.build_health is
  'How builds fared that ended in each day, week or month: in all, or by app, org, platform, build mode or actor. '
  'Tags are those that all events of a build have: app_id, org_id, build_id, platform, build_mode. '
  'Errors: invalid_period, invalid_by, invalid_range, invalid_tags (22023).';


-- Where they are met --------------------------------------------------------------------------------

create function tracking.known_surfaces()
  returns text[]
  language plpgsql stable security definer -- clients may not read the table
  set search_path = pg_catalog, pg_temp
as $$
begin
  return array(select distinct s.surface collate "C" from tracking.surfaces as s order by 1);
end $$;
comment on function tracking.known_surfaces is 'The surfaces that there are.';
revoke execute on function tracking.known_surfaces from public;
grant execute on function tracking.known_surfaces to anon, authenticated, service_role, analyst;

create type analytics.surface_set as (surfaces text[], actors bigint, actors_at_least bigint, orgs bigint, orgs_at_least bigint);
comment on type analytics.surface_set is 'How many persons and organizations were seen on a combination of surfaces.';
comment on column analytics.surface_set.actors is 'Persons seen on exactly these.';
comment on column analytics.surface_set.actors_at_least is 'Persons seen on all of these, and perhaps on others.';
comment on column analytics.surface_set.orgs is 'Organizations seen on exactly these: it had events there, whoever''s.';
comment on column analytics.surface_set.orgs_at_least is 'Organizations seen on all of these, and perhaps on others.';

-- How many persons and orgs were seen on exactly which surfaces, as a query. A set of surfaces is a number: a bit for
-- each of those that are known.
create function tracking.surfaces_query(org uuid, app text, since timestamptz, until timestamptz, tags jsonb)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    select s.bits, count(s.actor_id) as actors, count(s.org_id) as orgs
    from   (
      select h.actor_id, h.org_id, bit_or(k.bit) as bits
      from   (%s) as h
      join   known as k on k.surface = h.surface
      group  by grouping sets ((h.actor_id), (h.org_id))
    ) as s
    group  by s.bits
    $query$, tracking.hours_query(org, app, since, until, tags));
end $$;
comment on function tracking.surfaces_query is 'The query that answers analytics.surfaces, from hours.';

-- The same, by sets of people: who was seen on some surfaces and on no other.
create function tracking.surfaces_sets_query(circle uuid, org uuid, since timestamptz, until timestamptz)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_actors text;
  v_orgs   text;
begin
  if circle is null then
    return null;
  end if;
  v_actors := tracking.days_query(circle, since, until, by_surface => true);
  v_orgs := case
    when org is null then tracking.days_query(tracking.all_orgs(), since, until, by_surface => true)
    else format('select d.surface, 0 as page, set_bit(0::bit(4096), 0, 1) as members from (%s) as d', v_actors)
  end;
  return format(
    $query$
    with sets as materialized (
      select true as is_org, k.bit, d.page, bit_or(d.members) as members
      from   (%2$s) as d
      join   known as k on k.surface = d.surface
      group  by 2, 3
      union  all
      select false, k.bit, d.page, bit_or(d.members)
      from   (%1$s) as d
      join   known as k on k.surface = d.surface
      group  by 2, 3
    ),
    exact as (
      select n.bits, p.is_org, bit_count(bit_and(case when n.bits & k.bit > 0 then coalesce(s.members, 0::bit(4096)) else ~coalesce(s.members, 0::bit(4096)) end)) as subjects
      from   (select distinct is_org, page from sets) as p
      cross  join generate_series(1, (select sum(k.bit)::integer from known as k)) as n (bits)
      cross  join known as k
      left   join sets as s on s.is_org = p.is_org and s.page = p.page and s.bit = k.bit
      group  by n.bits, p.is_org, p.page
    )
    select e.bits, sum(e.subjects) filter (where not e.is_org) as actors, sum(e.subjects) filter (where e.is_org) as orgs
    from   exact as e
    group  by e.bits
    $query$, v_actors, v_orgs);
end $$;
comment on function tracking.surfaces_sets_query is 'The query that answers analytics.surfaces, from days; null where there is no circle.';
revoke execute on function tracking.surfaces_query, tracking.surfaces_sets_query from public;
grant execute on function tracking.surfaces_query, tracking.surfaces_sets_query to anon, authenticated, service_role, analyst;

create function analytics.surfaces(
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null, tags jsonb default '{}')
  returns setof analytics.surface_set
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
as $$
declare
  v_surfaces constant text[] := tracking.known_surfaces();
begin
  perform tracking.check_filters(since, until, tags);
  if cardinality(v_surfaces) > 12 then
    perform tracking.refuse_argument('too_many_surfaces', format('%s surfaces have too many combinations.', cardinality(v_surfaces)),
      'Give tracking.surfaces 12 surfaces at most.');
  end if;
  return query execute format(
    $query$
    with known as (
      select s.surface, 1 << (s.number::integer - 1) as bit from unnest(%1$L::text[]) with ordinality as s (surface, number)
    ),
    counted as (%2$s)
    select array(select k.surface from known as k where k.bit & n.bits > 0),
           coalesce(sum(c.actors) filter (where c.bits = n.bits), 0)::bigint, coalesce(sum(c.actors), 0)::bigint,
           coalesce(sum(c.orgs) filter (where c.bits = n.bits), 0)::bigint, coalesce(sum(c.orgs), 0)::bigint
    from   generate_series(1, %3$s) as n (bits)
    left   join counted as c on c.bits & n.bits = n.bits
    group  by n.bits
    order  by cardinality(array(select k.surface from known as k where k.bit & n.bits > 0)), 1
    $query$,
    v_surfaces,
    coalesce(
      tracking.surfaces_sets_query(tracking.circle_of('actor', org, app, tags), org, since, until),
      tracking.surfaces_query(org, app, since, until, tags)),
    (1 << cardinality(v_surfaces)) - 1);
end $$;
comment on function analytics.surfaces is
  'How many persons and organizations were seen on each combination of the surfaces that there are: the dashboard, the CLI, the builder. '
  'Errors: invalid_range, invalid_tags, too_many_surfaces (22023).';


-- How much happens ----------------------------------------------------------------------------------

create type analytics.activity_period as (period timestamptz, events bigint, actors bigint, orgs bigint);
comment on type analytics.activity_period is 'How much happened in a period.';
comment on column analytics.activity_period.period is 'When it begins.';
comment on column analytics.activity_period.actors is 'How many persons did something.';
comment on column analytics.activity_period.orgs is 'For how many organizations something was done.';

-- How much happened in each period, as a query.
create function tracking.activity_query(
  period text, event text, org uuid, app text, since timestamptz, until timestamptz, tags jsonb)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $query$
    with seen as (
      select s.period, s.actor_id, s.org_id, sum(s.events) as events, grouping(s.actor_id) = 0 as is_actor
      from   (select %1$s as period, h.actor_id, h.org_id, h.events from (%2$s) as h) as s
      group  by grouping sets ((s.period, s.actor_id), (s.period, s.org_id))
    )
    select s.period, sum(s.events) filter (where s.is_actor)::bigint as events, count(s.actor_id) as actors, count(s.org_id) as orgs
    from   seen as s
    group  by s.period
    $query$,
    tracking.period_expression('h.hour', period), tracking.hours_query(org, app, since, until, tags, case when event is not null then array[event] end));
end $$;
comment on function tracking.activity_query is 'The query that answers analytics.activity, from hours.';

-- The same, by sets.
create function tracking.activity_sets_query(circle uuid, period text, event text, org uuid, since timestamptz, until timestamptz)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_events constant text[] := case when event is not null then array[event] end;
  v_period constant text := tracking.period_expression('d.at', period);
begin
  return case when circle is not null and period <> 'hour' then format(
    $query$
    select s.period, sum(s.events)::bigint as events, sum(s.actors)::bigint as actors, %1$s as orgs
    from   (
      select %2$s as period, d.page, sum(d.events) as events, bit_count(bit_or(d.members)) as actors
      from   (%3$s) as d
      group  by 1, 2
    ) as s%4$s
    group  by s.period
    $query$,
    case when org is null then 'max(coalesce(o.orgs, 0))' else '1::bigint' end,
    v_period, tracking.days_query(circle, since, until, v_events),
    case when org is null then format(
      $query$
    left   join (
      select o.period, sum(o.orgs)::bigint as orgs
      from   (select %1$s as period, d.page, bit_count(bit_or(d.members)) as orgs from (%2$s) as d group by 1, 2) as o
      group  by o.period
    ) as o on o.period = s.period$query$,
      v_period, tracking.days_query(tracking.all_orgs(), since, until, v_events)) end) end;
end $$;
comment on function tracking.activity_sets_query is 'The query that answers analytics.activity, from days; null where there is no circle.';
revoke execute on function tracking.activity_query, tracking.activity_sets_query from public;
grant execute on function tracking.activity_query, tracking.activity_sets_query to anon, authenticated, service_role, analyst;

create function analytics.activity(
  period text default 'day', event text default null,
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null, tags jsonb default '{}')
  returns setof analytics.activity_period
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
  set timezone = 'UTC'
as $$
begin
  perform tracking.check_choice('period', period, '{hour,day,week,month}');
  if event is not null then
    perform tracking.check_event('event', event);
  end if;
  perform tracking.check_filters(since, until, tags);
  return query execute format(
    $query$
    with counted as (%1$s)
    select p.period, coalesce(c.events, 0), coalesce(c.actors, 0), coalesce(c.orgs, 0)
    from   (%2$s) as p
    left   join counted as c using (period)
    order  by 1
    $query$,
    coalesce(
      tracking.activity_sets_query(tracking.circle_of('actor', org, app, tags), period, event, org, since, until),
      tracking.activity_query(period, event, org, app, since, until, tags)),
    tracking.periods_query(period, since, until, 'counted'));
end $$;
comment on function analytics.activity is
  'How many events there were in each hour, day, week or month, of how many persons, for how many organizations. '
  'Errors: invalid_period, invalid_event, invalid_range, invalid_tags (22023).';

revoke execute on function
  analytics.funnel, analytics.retention, analytics.active, analytics.paths, analytics.sessions, analytics.build_health, analytics.surfaces, analytics.activity
  from public;
grant execute on function
  analytics.funnel, analytics.retention, analytics.active, analytics.paths, analytics.sessions, analytics.build_health, analytics.surfaces, analytics.activity
  to anon, authenticated, service_role, analyst;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
