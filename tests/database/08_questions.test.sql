-- Chapter 8.1: the questions, on logs small enough to answer by hand. (tests/questions.test.ts asks them of any log, and as
-- everybody.)
begin;
select plan(111);

-- Something happens: at an hour of 2 March 2026, a Monday, or whenever.
create function tests.happen(
  who text, event text, at text, org text default 'Acme', tags jsonb default '{}', channel text default 'default', app text default null)
  returns void
  language sql volatile
  set search_path = public, extensions
as $$
  insert into events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, tags, source)
  select coalesce(o.id, p.id), t.at, tracking.new_event_id(t.at), o.id, p.id, happen.app, happen.event, happen.channel, happen.tags, 'service'
  from   (select case when happen.at like '20%' then happen.at || 'Z' else '2026-03-02 ' || happen.at || 'Z' end::timestamptz as at) as t
  left   join orgs as o on o.name = happen.org
  left   join auth.users as u on u.email like happen.who || '@%'
  cross  join lateral (select u.id) as p
$$;
create function tests.forget()
  returns void
  language sql volatile
as $$ delete from public.events $$;
create view tests.acme as select id from public.orgs where name = 'Acme';


-- How far people get

select results_eq(
  $$ select f::text from analytics.funnel('{Open,Build,Ship}') as f $$,
  array['(,1,Open,0,,,)', '(,2,Build,0,,,)', '(,3,Ship,0,,,)'],
  'funnel: of an empty log, every step is a row with nobody');

select tests.happen('ada', 'Open', '10:00'), tests.happen('ada', 'Build', '10:10'), tests.happen('ada', 'Ship', '10:30');
select tests.happen('bob', 'Open', '10:00'), tests.happen('bob', 'Ship', '10:05'), tests.happen('bob', 'Build', '10:20');
select tests.happen('cyd', 'Open', '10:00'), tests.happen('cyd', 'Build', '10:00'), tests.happen('cyd', 'Ship', '10:01');
select tests.happen('eve', 'Build', '09:00', 'Evil'), tests.happen('eve', 'Open', '10:00', 'Evil');
select tests.happen('nik', 'Build', '10:00', null), tests.happen(null, 'Open', '10:00'), tests.happen(null, 'Build', '11:00');
select results_eq(
  $$ select f::text from analytics.funnel('{Open,Build,Ship}') as f $$,
  array['(,1,Open,4,1.0000,1.0000,)', '(,2,Build,2,0.5000,0.5000,900)', '(,3,Ship,1,0.2500,0.5000,1200)'],
  'funnel: steps are taken in their order and strictly one after the other; who does not begin is not counted, nor what nobody did');
select results_eq(
  $$ select f::text from analytics.funnel('{Open,Build,Ship}', by => 'org') as f $$,
  array['(,1,Open,2,1.0000,1.0000,)', '(,2,Build,1,0.5000,0.5000,600)', '(,3,Ship,1,0.5000,1.0000,1200)'],
  'funnel: by org, whoever of it takes the steps');
select results_eq(
  $$ select subjects from analytics.funnel('{Open,Build,Ship}', org => (select id from tests.acme)) $$, array[3, 2, 1]::bigint[], 'funnel: of one org');
select results_eq(
  $$ select subjects from analytics.funnel('{Open,Build,Ship}', since => '2026-03-02 10:00Z', until => '2026-03-02 10:20Z') $$,
  array[4, 1, 0]::bigint[], 'funnel: from since on, and before until');
select results_eq(
  $$ select subjects from analytics.funnel('{Open,Build}', since => '2026-03-02 10:00:00.001Z') $$, array[0, 0]::bigint[], 'funnel: since cuts to the millisecond');
select tests.forget();

select tests.happen('ada', 'Open', '10:00'), tests.happen('ada', 'Build', '11:00'), tests.happen('ada', 'Ship', '12:00');
select results_eq($$ select subjects from analytics.funnel('{Open,Build,Ship}', '2 hours') $$, array[1, 1, 1]::bigint[], 'funnel: the window is for all of it, and its end belongs to it');
select results_eq($$ select subjects from analytics.funnel('{Open,Build,Ship}', '7199.999 seconds') $$, array[1, 1, 0]::bigint[], 'funnel: a millisecond less is too little');
select results_eq($$ select subjects from analytics.funnel('{Open,Build,Ship}', '1 hour') $$, array[1, 1, 0]::bigint[], 'funnel: it does not begin anew at each step');
select tests.happen('ada', 'Open', '12:30'), tests.happen('ada', 'Build', '12:40'), tests.happen('ada', 'Ship', '13:00'), tests.happen('ada', 'Build', '12:41');
select results_eq(
  $$ select subjects, median_seconds from analytics.funnel('{Open,Build,Ship}', '1 hour') $$,
  'values (1::bigint, null::double precision), (1, 600), (1, 1200)', 'funnel: of several attempts the one that came furthest counts');
select results_eq(
  $$ select subjects, median_seconds from analytics.funnel('{Open,Build,Ship}', '1 day') $$,
  'values (1::bigint, null::double precision), (1, 3600), (1, 3600)', 'funnel: of several that came as far, the first');
select results_eq(
  $$ select subjects from analytics.funnel('{Open,Build,Open,Build,Build}', '1 day') $$, array[1, 1, 1, 1, 1]::bigint[], 'funnel: an event may be several steps');
select results_eq(
  $$ select subjects from analytics.funnel('{Open,Open,Open}', '1 day') $$, array[1, 1, 0]::bigint[], 'funnel: and each of them takes another event');
select tests.forget();

select tests.happen('ada', 'Open', '10:00', tags => '{"plan": "pro"}'), tests.happen('ada', 'Open', '10:30', tags => '{"plan": "free"}'), tests.happen('ada', 'Build', '10:40', tags => '{"plan": "pro"}');
select tests.happen('bob', 'Open', '10:00', tags => '{"plan": "free"}'), tests.happen('bob', 'Build', '10:10');
select tests.happen('cyd', 'Open', '10:00', tags => '{"plan": "free"}');
select tests.happen('eve', 'Open', '10:00', 'Evil'), tests.happen('nik', 'Open', '10:00', null, tags => '{"plan": 7}');
select results_eq(
  $$ select f::text from analytics.funnel('{Open,Build}', '30 minutes', breakdown => 'plan') as f $$,
  array['(free,1,Open,3,1.0000,1.0000,)', '(free,2,Build,2,0.6667,0.6667,600)',
        '(7,1,Open,1,1.0000,1.0000,)', '(7,2,Build,0,0.0000,0.0000,)', '(,1,Open,1,1.0000,1.0000,)', '(,2,Build,0,0.0000,0.0000,)'],
  'funnel: broken down by what the best attempt began with, the biggest first, without the tag last');
select results_eq(
  $$ select f::text from analytics.funnel('{Open,Build}', '1 hour', breakdown => 'plan', tags => '{"plan": "pro"}') as f $$,
  array['(pro,1,Open,1,1.0000,1.0000,)', '(pro,2,Build,1,1.0000,1.0000,2400)'], 'funnel: tags are a filter for every step');
select is_empty($$ select from analytics.funnel('{Close,Build}', breakdown => 'plan') $$, 'funnel: without anybody there is nothing to break down');
select tests.forget();


-- Whether they come back

select is_empty($$ select from analytics.retention('Open') $$, 'retention: an empty log has no cohorts');
-- Weeks begin on Mondays: 2, 9 and 16 March.
select tests.happen('ada', 'Open', '2026-03-02 00:00'), tests.happen('ada', 'Open', '2026-03-15 23:59:59.999'), tests.happen('ada', 'Build', '2026-03-16 00:00');
select tests.happen('bob', 'Build', '2026-03-07 10:00'), tests.happen('bob', 'Open', '2026-03-08 23:00'), tests.happen('bob', 'Open', '2026-03-09 00:00');
select tests.happen('cyd', 'Open', '2026-03-10 10:00'), tests.happen('cyd', 'Build', '2026-03-10 10:00');
select tests.happen('eve', 'Build', '2026-03-10 10:00', 'Evil'), tests.happen(null, 'Open', '2026-03-02 10:00');
select results_eq(
  $$ select r::text from analytics.retention('Open', periods => 3) as r $$,
  array['(2026-03-02,2,0,2,1.0000)', '(2026-03-02,2,1,2,1.0000)', '(2026-03-02,2,2,0,0.0000)',
        '(2026-03-09,1,0,1,1.0000)', '(2026-03-09,1,1,0,0.0000)', '(2026-03-09,1,2,0,0.0000)'],
  'retention: each is in the cohort of its first time, and weeks begin on Monday');
select results_eq(
  $$ select r::text from analytics.retention('Open', 'Build', periods => 3) as r $$,
  array['(2026-03-02,2,0,0,0.0000)', '(2026-03-02,2,1,0,0.0000)', '(2026-03-02,2,2,1,0.5000)',
        '(2026-03-09,1,0,1,1.0000)', '(2026-03-09,1,1,0,0.0000)', '(2026-03-09,1,2,0,0.0000)'],
  'retention: to another event, at the first one or after it');
select results_eq(
  $$ select r::text from analytics.retention('Open', period => 'month', periods => 2) as r $$,
  array['(2026-03-01,3,0,3,1.0000)', '(2026-03-01,3,1,0,0.0000)'], 'retention: by month');
select results_eq(
  $$ select r::text from analytics.retention('Open', period => 'day', periods => 2, org => (select id from tests.acme), since => '2026-03-08') as r $$,
  array['(2026-03-08,1,0,1,1.0000)', '(2026-03-08,1,1,1,1.0000)', '(2026-03-10,1,0,1,1.0000)', '(2026-03-10,1,1,0,0.0000)', '(2026-03-15,1,0,1,1.0000)', '(2026-03-15,1,1,0,0.0000)'],
  'retention: by day; what is filtered out has not happened');
select results_eq(
  $$ select r::text from analytics.retention('Open', by => 'org', periods => 2) as r $$,
  array['(2026-03-02,1,0,1,1.0000)', '(2026-03-02,1,1,1,1.0000)'], 'retention: of orgs');
select results_eq(
  $$ select count(*) from analytics.retention('Open', until => '2026-03-16') $$, array[3::bigint], 'retention: a period that begins at until has not begun');
select results_eq(
  $$ select count(*) from analytics.retention('Open', until => '2026-03-16 00:00:00.001Z') $$, array[5::bigint], 'retention: one that begins before it has');
select tests.forget();
select tests.happen('ada', 'Open', to_char((date_trunc('week', now(), 'UTC') - interval '1 week') at time zone 'UTC', 'YYYY-MM-DD HH24:MI'));
select results_eq($$ select period from analytics.retention('Open') $$, array[0, 1], 'retention: a period that is yet to begin is left out');
select tests.happen('bob', 'Open', to_char(now() at time zone 'UTC' + interval '24 hours', 'YYYY-MM-DD HH24:MI'));
select is((select count(*) from analytics.retention('Open', period => 'day', since => now())), 1::bigint, 'retention: a client''s clock that is ahead makes a cohort all the same');
select tests.forget();


-- Whether they are there

select is_empty('select from analytics.active()', 'active: nobody, in an empty log without bounds');
select results_eq(
  $$ select a::text from analytics.active(since => '2026-03-02', until => '2026-03-03 00:00:00.001Z') as a $$,
  array['(2026-03-02,0,0,0,0)', '(2026-03-03,0,0,0,0)'], 'active: nobody, in each day of an empty log from since to until');
select tests.happen('ada', 'Open', '2026-03-02 23:59:59.999'), tests.happen('ada', 'Open', '2026-03-03 00:00'), tests.happen('ada', 'Build', '2026-03-05 10:00');
select tests.happen('bob', 'Open', '2026-03-03 10:00', 'Evil'), tests.happen('bob', 'Open', '2026-03-03 11:00'), tests.happen(null, 'Open', '2026-03-07 10:00');
select results_eq(
  $$ select a::text from analytics.active() as a $$,
  array['(2026-03-02,1,1,0,0)', '(2026-03-03,2,1,1,0)', '(2026-03-04,0,0,0,0)', '(2026-03-05,1,0,0,1)'],
  'active: new, returning and resurrected, with the days between that have nobody');
select results_eq(
  $$ select a::text from analytics.active(since => '2026-03-03 00:00:00.001Z', until => '2026-03-06') as a $$,
  array['(2026-03-03,1,1,0,0)', '(2026-03-04,0,0,0,0)', '(2026-03-05,1,0,0,1)'], 'active: who was there before since is not new');
select results_eq(
  $$ select a::text from analytics.active(period => 'week', event => 'Build', since => '2026-02-24') as a $$,
  array['(2026-02-23,0,0,0,0)', '(2026-03-02,1,1,0,0)'], 'active: of one event, by week');
select results_eq(
  $$ select a::text from analytics.active('org', 'month') as a $$, array['(2026-03-01,2,2,0,0)'], 'active: orgs, by month');
select results_eq(
  $$ select a::text from analytics.active(org => (select id from tests.acme), since => '2026-03-03', until => '2026-03-04') as a $$,
  array['(2026-03-03,2,1,1,0)'], 'active: in one org');
set local timezone = 'Pacific/Auckland';
select results_eq(
  $$ select a::text from analytics.active() as a $$,
  array['(2026-03-02,1,1,0,0)', '(2026-03-03,2,1,1,0)', '(2026-03-04,0,0,0,0)', '(2026-03-05,1,0,0,1)'], 'active: days are those of UTC, wherever the session is');
set local timezone = 'UTC';
select is((select count(*) from analytics.active(period => 'month', since => '-infinity', until => 'infinity')), 1::bigint, 'active: an infinite time is none');
select is(
  (select count(*) from analytics.active(period => 'month', since => '0001-01-01', until => '9999-01-01')),
  (select count(*) from generate_series(timestamptz '1970-01-01', now() + interval '1 day', '1 month')), 'active: no period is from before the log, or from after it');
select tests.forget();


-- What they do next

select is_empty($$ select from analytics.paths('Open') $$, 'paths: none, in an empty log');
select tests.happen('ada', 'Before', '09:59'), tests.happen('ada', 'Open', '10:00'), tests.happen('ada', 'Look', '10:10'), tests.happen('ada', 'Build', '10:40'), tests.happen('ada', 'Ship', '10:41'), tests.happen('ada', 'Rest', '10:42');
select tests.happen('bob', 'Open', '10:00'), tests.happen('bob', 'Look', '10:20'), tests.happen('bob', 'Build', '10:50:00.001');
select tests.happen('cyd', 'Look', '10:00'), tests.happen(null, 'Open', '10:00'), tests.happen(null, 'Look', '10:01');
select results_eq(
  $$ select p::text from analytics.paths('Open') as p $$,
  array['(1,Open,Look,2,2,900)', '(2,Look,Build,1,1,1800)', '(2,Look,,1,1,)', '(3,Build,Ship,1,1,60)'],
  'paths: they begin with the event, go on until a gap, and for so many steps');
select results_eq(
  $$ select p::text from analytics.paths('Open', 1, '15 minutes') as p $$,
  array['(1,Open,Look,1,1,600)', '(1,Open,,1,1,)'], 'paths: as many steps as are asked for, and another gap');
select tests.forget();
select tests.happen('ada', 'Open', '10:00'), tests.happen('ada', 'Open', '10:01'), tests.happen('ada', 'Look', '10:02'), tests.happen('ada', 'Open', '10:03'), tests.happen('ada', 'Open', '10:04');
select tests.happen('ada', 'Open', '11:00'), tests.happen('ada', 'B', '11:00'), tests.happen('ada', 'a', '11:00'), tests.happen('ada', 'Open', '11:00');
select results_eq(
  $$ select p::text from analytics.paths('Open', 2, org => (select id from tests.acme)) as p $$,
  array['(1,Open,Open,3,1,60)', '(2,Open,Look,1,1,60)', '(2,Open,a,1,1,0)', '(2,Open,,1,1,)'],
  'paths: an event inside a path begins none; after its end, one does; events of a moment are in the order of their names');
select results_eq(
  $$ select p::text from analytics.paths('Open', 2, since => '2026-03-02 10:02Z', until => '2026-03-02 10:04Z') as p $$,
  array['(1,Open,,1,1,)'], 'paths: they are of what is filtered');
select tests.forget();


-- What they do in one go

select is_empty('select from analytics.sessions()', 'sessions: none, in an empty log');
select tests.happen('ada', 'Open', '10:00', channel => 'usage'), tests.happen('ada', 'Build', '10:30', 'Demo', channel => 'build-lifecycle'), tests.happen('ada', 'Look', '10:31', channel => 'usage');
select tests.happen('ada', 'Open', '11:01:00.001', null), tests.happen('bob', 'Look', '12:00', channel => 'cli-usage'), tests.happen('bob', 'Look', '12:00'), tests.happen('bob', 'Again', '12:00'), tests.happen(null, 'Open', '13:00');
select results_eq(
  $$ select split_part(u.email, '@', 1), started_at, ended_at, seconds, events, first_event, last_event, s.surfaces, array(select name from public.orgs as o where o.id = any (s.orgs) order by 1)
     from   analytics.sessions() as s join auth.users as u on u.id = s.actor_id $$,
  $$ values
    ('bob', timestamptz '2026-03-02 12:00Z', timestamptz '2026-03-02 12:00Z', 0::double precision, 3::bigint, 'Again', 'Look', '{cli}'::text[], '{Acme}'::text[]),
    ('ada', '2026-03-02 11:01:00.001Z', '2026-03-02 11:01:00.001Z', 0, 1, 'Open', 'Open', '{}', '{}'),
    ('ada', '2026-03-02 10:00Z', '2026-03-02 10:31Z', 1860, 3, 'Open', 'Look', '{builder,dashboard}', '{Acme,Demo}') $$,
  'sessions: events with no gap between them, the newest session first, with the surfaces and orgs that they were on');
select results_eq($$ select events from analytics.sessions('30 minutes 1 millisecond') $$, array[3, 4]::bigint[], 'sessions: another gap');
select results_eq(
  $$ select events from analytics.sessions(org => (select id from tests.acme), since => '2026-03-02 10:00:00.001Z', until => '2026-03-02 12:00Z') $$,
  array[1]::bigint[], 'sessions: of what is filtered');
select tests.forget();


-- Where they are met

select results_eq(
  'select s::text from analytics.surfaces() as s',
  array['({builder},0,0,0,0)', '({cli},0,0,0,0)', '({dashboard},0,0,0,0)', '("{builder,cli}",0,0,0,0)', '("{builder,dashboard}",0,0,0,0)', '("{cli,dashboard}",0,0,0,0)', '("{builder,cli,dashboard}",0,0,0,0)'],
  'surfaces: every combination is there, also in an empty log');
select tests.happen('ada', 'x', '10:00', channel => 'usage'), tests.happen('ada', 'x', '10:00', channel => 'cli-usage'), tests.happen('ada', 'x', '10:00', 'Demo', channel => 'build-lifecycle');
select tests.happen('bob', 'x', '10:00', channel => 'usage'), tests.happen('bob', 'x', '11:00', channel => 'cli-usage'), tests.happen('cyd', 'x', '10:00', channel => 'cli-usage'), tests.happen('eve', 'x', '10:00', null);
select tests.happen(null, 'x', '10:00', 'Evil', channel => 'usage'), tests.happen('nik', 'x', '10:00', null, channel => 'usage');
select results_eq(
  'select s::text from analytics.surfaces() as s',
  array['({builder},0,1,1,1)', '({cli},1,3,0,1)', '({dashboard},1,3,1,2)', '("{builder,cli}",0,1,0,0)', '("{builder,dashboard}",0,1,0,0)', '("{cli,dashboard}",1,2,1,1)', '("{builder,cli,dashboard}",1,1,0,0)'],
  'surfaces: persons and orgs on exactly these, and on at least these; an org is where it has events, whoever''s');
select results_eq(
  $$ select s::text from analytics.surfaces(org => (select id from tests.acme), until => '2026-03-02 10:30Z') as s where actors + orgs > 0 $$,
  array['({cli},1,2,0,1)', '({dashboard},1,2,0,1)', '("{cli,dashboard}",1,1,1,1)'], 'surfaces: of what is filtered');
delete from tracking.surfaces where surface = 'builder';
select is((select count(*) from analytics.surfaces()), 3::bigint, 'surfaces: those that the project has');
select tests.forget();
insert into tracking.surfaces (surface, channel) select 'surface ' || n, 'channel ' || n from generate_series(1, 10) as n;
select is((select count(*) from analytics.surfaces()), 4095::bigint, 'surfaces: twelve of them have 4,095 combinations');
insert into tracking.surfaces (surface, channel) values ('one more', 'one more');
select is(tests.outcome('ada@acme.test', 'select analytics.surfaces()'), '22023 too_many_surfaces', 'surfaces: and thirteen too many');
delete from tracking.surfaces;
select is_empty('select from analytics.surfaces()', 'surfaces: without any there is no combination');


-- How much happens

select is_empty('select from analytics.activity()', 'activity: none, in an empty log without bounds');
select tests.happen('ada', 'Open', '10:00'), tests.happen('ada', 'Open', '10:59:59.999', 'Demo'), tests.happen('bob', 'Build', '12:00', null), tests.happen(null, 'Open', '12:00', 'Evil');
select results_eq(
  $$ select a::text from analytics.activity('hour') as a $$,
  array['("2026-03-02 10:00:00+00",2,1,2)', '("2026-03-02 11:00:00+00",0,0,0)', '("2026-03-02 12:00:00+00",2,1,1)'],
  'activity: by hour, with the hours between that have nothing');
select results_eq(
  $$ select a::text from analytics.activity(since => '2026-03-01', until => '2026-03-02 12:00Z') as a $$,
  array['("2026-03-01 00:00:00+00",0,0,0)', '("2026-03-02 00:00:00+00",2,1,2)'], 'activity: by day, from since to until');
select results_eq($$ select a::text from analytics.activity('week', 'Open') as a $$, array['("2026-03-02 00:00:00+00",3,1,3)'], 'activity: of one event');
select results_eq(
  $$ select a::text from analytics.activity('month', org => (select id from tests.acme)) as a $$, array['("2026-03-01 00:00:00+00",1,1,1)'], 'activity: of one org');
select tests.forget();


-- How builds fare

select is_empty('select from analytics.build_health()', 'build_health: nothing without builds');
create function tests.build(n integer, status text, requested text, started text, ended text, app text default 'com.acme.app', platform text default 'ios', error text default null)
  returns void
  language sql volatile
  set search_path = public, extensions
as $$
  insert into build_requests (id, owner_org, app_id, requested_by, platform, status, last_error, created_at, started_at, completed_at)
  select ('b0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, a.owner_org, a.app_id, '10000000-0000-4000-8000-000000000001', build.platform, build.status, error,
         ('2026-03-02 ' || requested || 'Z')::timestamptz, ('2026-03-02 ' || started || 'Z')::timestamptz, ('2026-03-02 ' || ended || 'Z')::timestamptz
  from   apps as a
  where  a.app_id = build.app
$$;
set local session_replication_role = replica; -- the triggers would write times and events of their own
select tests.build(1, 'failed', '08:00', '08:01', '08:10', error => 'exit 1'), tests.build(2, 'timed_out', '08:20', '08:21', '08:40'), tests.build(3, 'cancelled', '08:41', null, '08:42');
select tests.build(4, 'succeeded', '09:09', '09:10', '09:20'), tests.build(5, 'failed', '10:00', '10:02', '10:10', error => 'validation failed'), tests.build(6, 'succeeded', '11:10', '11:12', '11:14');
select tests.build(7, 'succeeded', '12:00', '12:01', '12:11'), tests.build(8, 'running', '12:00', '12:01', null), tests.build(9, 'failed', '12:00', '12:00', '12:30', 'com.evil.app', 'android');
set local session_replication_role = origin;
select results_eq(
  $$ select b::text from analytics.build_health(app => 'com.acme.app') as b $$,
  array['(2026-03-02,,7,3,3,0.5000,570,1005,60,120,"{""timeout"": 1, ""builder_error"": 1, ""validation_error"": 1}",4020,0.3333)'],
  'build_health: what ended is counted, a red app is green again with its next success, and a failure is flaky that the next build, asked for within an hour, is not');
select results_eq(
  $$ select period, by_value, builds, failed, median_seconds_to_green, flakiness from analytics.build_health('day', 'platform') $$,
  $$ values (date '2026-03-02', 'android', 1::bigint, 1::bigint, null::double precision, 0.0000), ('2026-03-02', 'ios', 7, 3, 4020, 0.3333) $$, 'build_health: by platform');
select results_eq(
  $$ select by_value, builds from analytics.build_health(by => 'app', tags => '{"platform": "ios", "build_mode": "release"}') $$,
  $$ values ('com.acme.app', 7::bigint) $$, 'build_health: by the tags that a build''s events have');
select is_empty($$ select from analytics.build_health(tags => '{"plan": "pro"}') $$, 'build_health: no build has any other tag');
select results_eq($$ select by_value from analytics.build_health(by => 'app') $$, array['com.acme.app', 'com.evil.app'], 'build_health: by app');
select results_eq($$ select by_value from analytics.build_health(by => 'org') $$, $$ select owner_org::text from public.apps where app_id in ('com.acme.app', 'com.evil.app') order by 1 $$, 'build_health: by org');
select results_eq($$ select by_value from analytics.build_health(by => 'build_mode') $$, array['release'], 'build_health: by build mode');
select results_eq($$ select by_value from analytics.build_health(by => 'actor') $$, array['10000000-0000-4000-8000-000000000001'], 'build_health: by person');
select results_eq(
  $$ select builds, median_seconds_to_green, flakiness from analytics.build_health(org => (select id from tests.acme), since => '2026-03-02 08:40Z', until => '2026-03-02 09:20:00.001Z') $$,
  $$ values (3::bigint, 4200::double precision, 0.0000) $$,
  'build_health: what ended from since to until is counted, in the light of what was before and came after');
select results_eq(
  $$ select builds, succeeded, success_rate, p50_run_seconds, failure_categories, flakiness from analytics.build_health(since => '2026-03-02 08:41Z', until => '2026-03-02 08:43Z') $$,
  $$ values (1::bigint, 0::bigint, null::numeric, null::double precision, '{}'::jsonb, null::numeric) $$, 'build_health: there is no rate of nothing');


-- What cannot be answered

-- How somebody is refused: the error, what is wrong, and the way out.
create function tests.refusal(caller text, query text)
  returns text
  language plpgsql volatile
  set search_path = public, extensions
as $$
declare
  v_state text;
  v_text  text;
  v_detail text;
  v_hint  text;
begin
  perform tests.speak_as(caller);
  begin
    execute query;
    v_text := 'done';
  exception when others then
    get stacked diagnostics v_state = returned_sqlstate, v_text = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
  end;
  perform tests.speak_as('owner');
  return concat_ws(' ', v_state, v_text, v_detail, v_hint);
end $$;
select is(tests.refusal('ada@acme.test', 'select analytics.' || t.call), '22023 ' || t.error, t.call)
from   (values
  ('funnel(null)', 'invalid_steps A funnel has 2 to 20 steps, not 0. Name the events in their order, as in array[''Build Requested'', ''Build Succeeded''].'),
  ('funnel(''{}'')', 'invalid_steps A funnel has 2 to 20 steps, not 0. Name the events in their order, as in array[''Build Requested'', ''Build Succeeded''].'),
  ('funnel(''{A}'')', 'invalid_steps A funnel has 2 to 20 steps, not 1. Name the events in their order, as in array[''Build Requested'', ''Build Succeeded''].'),
  ('funnel(array_fill(''A''::text, array[21]))', 'invalid_steps A funnel has 2 to 20 steps, not 21. Name the events in their order, as in array[''Build Requested'', ''Build Succeeded''].'),
  ('funnel(''{{A,B},{C,D}}'')', 'invalid_steps A funnel''s steps are a list, not a table. Name the events in their order, as in array[''Build Requested'', ''Build Succeeded''].'),
  ('funnel(''{A,null}'')', 'invalid_steps A step is blank. Name an event for each step, as it is in the log.'),
  ('funnel(array[''A'', E'' \t'']) ', 'invalid_steps A step is blank. Name an event for each step, as it is in the log.'),
  ('funnel(''{A,B}'', ''0'')', 'invalid_window within is not more than nothing and at most 100 years. Give a span of time such as ''30 minutes'' or ''7 days''.'),
  ('funnel(''{A,B}'', ''-1 day'')', 'invalid_window within is not more than nothing and at most 100 years. Give a span of time such as ''30 minutes'' or ''7 days''.'),
  ('funnel(''{A,B}'', null)', 'invalid_window within is not more than nothing and at most 100 years. Give a span of time such as ''30 minutes'' or ''7 days''.'),
  ('funnel(''{A,B}'', by => ''team'')', 'invalid_by by is none of actor, org, but ''team''. Ask with by => ''actor''.'),
  ('funnel(''{A,B}'', by => null)', 'invalid_by by is none of actor, org, but null. Ask with by => ''actor''.'),
  ('funnel(''{A,B}'', tags => ''[]'')', 'invalid_tags tags are not an object. Ask for tags as {"platform": "ios"}.'),
  ('funnel(''{A,B}'', since => ''2026-03-02'', until => ''2026-03-02'')', 'invalid_range since is not before until. until is the first moment that does not count any more.'),
  ('retention('' '')', 'invalid_event first_event is blank. Name an event, as it is in the log.'),
  ('retention(null)', 'invalid_event first_event is blank. Name an event, as it is in the log.'),
  ('retention(''A'', '''')', 'invalid_event return_event is blank. Name an event, as it is in the log.'),
  ('retention(''A'', period => ''hour'')', 'invalid_period period is none of day, week, month, but ''hour''. Ask with period => ''day''.'),
  ('retention(''A'', by => ''Actor'')', 'invalid_by by is none of actor, org, but ''Actor''. Ask with by => ''actor''.'),
  ('retention(''A'', periods => 0)', 'invalid_periods periods is not from 1 to 1000. Ask with periods => 3.'),
  ('retention(''A'', periods => 1001)', 'invalid_periods periods is not from 1 to 1000. Ask with periods => 3.'),
  ('retention(''A'', until => ''294276-12-31 10:30+00'')', 'invalid_range since and until lie between the years 1 and 9999. Leave them out, or ask for -infinity and infinity.'),
  ('active(since => ''4714-11-24 00:00+00 BC'')', 'invalid_range since and until lie between the years 1 and 9999. Leave them out, or ask for -infinity and infinity.'),
  ('retention(''A'', since => ''infinity'', until => ''-infinity'')', 'invalid_range since is not before until. until is the first moment that does not count any more.'),
  ('active(''app'')', 'invalid_by by is none of actor, org, but ''app''. Ask with by => ''actor''.'),
  ('active(period => null)', 'invalid_period period is none of day, week, month, but null. Ask with period => ''day''.'),
  ('active(event => '''')', 'invalid_event event is blank. Name an event, as it is in the log.'),
  ('active(since => ''2026-03-03'', until => ''2026-03-02'')', 'invalid_range since is not before until. until is the first moment that does not count any more.'),
  ('paths(null)', 'invalid_event from_event is blank. Name an event, as it is in the log.'),
  ('paths(''A'', 0)', 'invalid_depth depth is not from 1 to 20. Ask with depth => 3.'),
  ('paths(''A'', 21)', 'invalid_depth depth is not from 1 to 20. Ask with depth => 3.'),
  ('paths(''A'', null)', 'invalid_depth depth is not from 1 to 20. Ask with depth => 3.'),
  ('paths(''A'', gap => ''0'')', 'invalid_gap gap is not more than nothing and at most 100 years. Give a span of time such as ''30 minutes'' or ''7 days''.'),
  ('paths(''A'', gap => ''101 years'')', 'invalid_gap gap is not more than nothing and at most 100 years. Give a span of time such as ''30 minutes'' or ''7 days''.'),
  ('sessions(''-1 second'')', 'invalid_gap gap is not more than nothing and at most 100 years. Give a span of time such as ''30 minutes'' or ''7 days''.'),
  ('sessions(tags => ''"a"'')', 'invalid_tags tags are not an object. Ask for tags as {"platform": "ios"}.'),
  ('surfaces(tags => ''null'')', 'invalid_tags tags are not an object. Ask for tags as {"platform": "ios"}.'),
  ('activity(''year'')', 'invalid_period period is none of hour, day, week, month, but ''year''. Ask with period => ''hour''.'),
  ('activity(event => '' '')', 'invalid_event event is blank. Name an event, as it is in the log.'),
  ('build_health(''hour'')', 'invalid_period period is none of day, week, month, but ''hour''. Ask with period => ''day''.'),
  ('build_health(by => ''status'')', 'invalid_by by is none of app, org, platform, build_mode, actor, but ''status''. Ask with by => ''app''.'),
  ('build_health(since => ''2026-03-03'', until => ''2026-03-02'')', 'invalid_range since is not before until. until is the first moment that does not count any more.'),
  ('build_health(tags => ''[]'')', 'invalid_tags tags are not an object. Ask for tags as {"platform": "ios"}.')) as t (call, error);

select * from finish();
rollback;
