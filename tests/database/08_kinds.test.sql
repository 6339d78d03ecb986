begin;
select plan(7);
create role analyst_of_kinds in role analyst;

-- Given what ada and bob did for Acme, twice in one kind, eve for Evil, and a service for Acme
insert into public.events (scope_id, org_id, actor_id, app_id, event, channel, event_id, occurred_at)
  select e.org::uuid, e.org::uuid, e.actor::uuid, e.app, e.event, e.channel, tracking.new_event_id(e.at::timestamptz), e.at::timestamptz
  from (values
    ('a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'com.acme.app',  'User visit', 'usage',   '2026-03-01 10:00Z'),
    ('a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'com.acme.app',  'User visit', 'usage',   '2026-03-02 10:30Z'),
    ('a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002', 'com.acme.beta', 'User visit', 'usage',   '2026-03-02 10:45Z'),
    ('a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000002', 'com.acme.beta', 'User visit', 'default', '2026-03-03 11:00Z'),
    ('a0000000-0000-4000-8000-000000000001', null,                                   'com.acme.app',  'Doctor Ran', 'cli-usage', '2026-03-03 12:00Z'),
    ('a0000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000004', 'com.evil.app',  'User visit', 'usage',   '2026-03-04 10:00Z')
  ) as e (org, actor, app, event, channel, at);

select results_eq(
  $$ select event, channel, surface, events, actors, orgs, first_seen, last_seen from analytics.kinds() $$,
  $$ values ('User visit', 'usage', 'dashboard', 4::bigint, 3::bigint, 2::bigint, '2026-03-01 10:00Z'::timestamptz, '2026-03-04 10:00Z'::timestamptz),
            ('Doctor Ran', 'cli-usage', 'cli', 1, 0, 1, '2026-03-03 12:00Z', '2026-03-03 12:00Z'),
            ('User visit', 'default', null, 1, 1, 1, '2026-03-03 11:00Z', '2026-03-03 11:00Z') $$,
  'kinds are told apart by name and channel, the most frequent first, with how often, by how many, for how many, and when');

select tracking.roll_up();
select results_eq(
  $$ select event, channel, events, actors from analytics.kinds() $$,
  $$ values ('User visit', 'usage', 4::bigint, 3::bigint), ('Doctor Ran', 'cli-usage', 1, 0), ('User visit', 'default', 1, 1) $$,
  'the same, when the rollup has them');

select results_eq(
  $$ select event, channel, events from analytics.kinds(app => 'com.acme.app', since => '2026-03-02 10:30Z', until => '2026-03-03 12:00Z') $$,
  $$ values ('User visit', 'usage', 1::bigint) $$,
  'within what the filters let through, to the millisecond');

select throws_ok(
  $$ select analytics.kinds(since => '2026-01-02', until => '2026-01-01') $$,
  '22023', 'invalid_range', 'a range that ends before it begins is refused');

select tests.sign_in('eve@evil.test');
select results_eq(
  $$ select event, channel, events, orgs from analytics.kinds() $$,
  $$ values ('User visit', 'usage', 1::bigint, 1::bigint) $$,
  'people see the kinds of their own organizations');
select is_empty($$ select analytics.kinds(org => 'a0000000-0000-4000-8000-000000000001') $$, 'and nothing of others');

reset role;
grant usage on schema extensions to analyst_of_kinds;
set local role analyst_of_kinds;
select lives_ok($$ select public.read_events() $$, 'an analyst may follow the log');
select * from finish();
rollback;
