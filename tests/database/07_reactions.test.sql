-- Chapter 7.1: what sinks are told of orgs and people, and the mails that events are the occasion for.
begin;
select plan(92);

-- The day is stopped: what is received, is received now, and windows do not turn over in the middle of a test.
update tracking.reactions set at_most_every = '36500 days';
select tracking.create_sink('bento', 'bento');
select tracking.create_sink('posthog', 'posthog');
create temporary table admins as select u.id, u.email from auth.users as u where u.email in ('ada@acme.test', 'bob@acme.test', 'cyd@acme.test');
insert into tracking.role_bindings (principal_id, role, org_id) select id, 'admin', 'a0000000-0000-4000-8000-000000000001' from admins where email = 'bob@acme.test';
insert into tracking.role_bindings (principal_id, role, org_id) values ('10000000-0000-4000-8000-000000000005', 'viewer', 'a0000000-0000-4000-8000-000000000001');

-- An event of Acme's, as the row that a lease gives; `named` is what is other than usual.
create function tests.event(named jsonb default '{}')
  returns jsonb
  language sql volatile
as $$
  select to_jsonb(jsonb_populate_record(null::public.events, jsonb_build_object(
    'scope_id', coalesce(named ->> 'org_id', 'a0000000-0000-4000-8000-000000000001'), 'occurred_at', now(), 'event_id', gen_random_uuid(),
    'org_id', 'a0000000-0000-4000-8000-000000000001', 'actor_id', '10000000-0000-4000-8000-000000000003', 'app_id', 'com.acme.app', 'event', 'onboarding-step-done',
    'channel', 'onboarding-v2', 'notify', false, 'tags', '{"app_id": "com.acme.app"}'::jsonb, 'context', '{}'::jsonb, 'tracking_version', 2, 'source', 'client',
    'received_at', now(), 'txid', '7', 'epoch', 1) || named))
$$;

-- The mails of a batch of events: who gets which, in order.
create function tests.mails(sink text, variadic events jsonb[])
  returns text[]
  language sql volatile
as $$ select array(select m.mail || ' ' || m.email from tracking.mails_due(sink, to_jsonb(events)) as m) $$;


-- Who may

select is(tests.outcome(t.caller, t.query), t.verdict, format('%s: %s', t.caller, t.query))
from   (values
  ('tracking.email(''10000000-0000-4000-8000-000000000001'')', 'ada@acme.test'),
  ('org.name(''a0000000-0000-4000-8000-000000000001'')', 'Acme'),
  ('app.name(''com.acme.app'')', 'Acme App'),
  ('(select count(*) from org.admins(''a0000000-0000-4000-8000-000000000001''))', '2'),
  ('(select count(*) from tracking.announce_orgs(''posthog'', ''{}'', ''{}'', ''{}''))', '0'),
  ('tracking.confirm_orgs(''posthog'', ''{}'')', ''),
  ('(select count(*) from tracking.mails_due(''bento'', ''[]''))', '0'),
  ('tracking.mails_sent(''bento'', ''[]'')', '')
) as f (call, answer),
lateral (values
  ('service', 'select ' || f.call, f.answer),
  ('ada@acme.test', 'select ' || f.call, '42501 permission denied for function ' || (regexp_match(f.call, '\.(\w+)\('))[1]),
  ('as_local_acme_admin', 'select ' || f.call, '42501 permission denied for function ' || (regexp_match(f.call, '\.(\w+)\('))[1])
) as t (caller, query, verdict);
select is(tests.outcome(t.caller, t.query), t.verdict, format('%s: %s', t.caller, t.query))
from   (values
  ('ada@acme.test', 'select count(*) from tracking.reactions', '42501 permission denied for table reactions'),
  ('ada@acme.test', 'select count(*) from tracking.mail_optouts', '42501 permission denied for table mail_optouts'),
  ('ada@acme.test', 'select count(*) from tracking.mail_claims', '42501 permission denied for table mail_claims'),
  ('ada@acme.test', 'select count(*) from tracking.announced_orgs', '42501 permission denied for table announced_orgs'),
  ('service', 'delete from tracking.mail_claims', '42501 permission denied for table mail_claims'),
  ('service', 'delete from tracking.announced_orgs', '42501 permission denied for table announced_orgs'),
  ('service', 'insert into tracking.mail_optouts (actor_id, preference) values (''10000000-0000-4000-8000-000000000005'', ''news'') returning preference', 'news'),
  ('service', 'delete from tracking.mail_optouts where preference = ''news'' returning preference', 'news'),
  ('service', 'update tracking.reactions set max_age = ''3 days'' returning name', 'onboarding-step-done')
) as t (caller, query, verdict);


-- Names and addresses

select is(org.name('a0000000-0000-4000-8000-0000000000ff'), null, 'an org that is not there has no name');
select is(app.name('com.nobody'), null, 'nor has an app');
select is(tracking.email('10000000-0000-4000-8000-0000000000ff'), null, 'somebody who is not there has no address');
select is(tracking.email('20000000-0000-4000-8000-000000000001'), null, 'nor has an API key');
select results_eq(
  $$ select * from org.admins('a0000000-0000-4000-8000-000000000001') $$,
  $$ values ('10000000-0000-4000-8000-000000000001'::uuid, 'ada@acme.test'), ('10000000-0000-4000-8000-000000000002', 'bob@acme.test') $$,
  'an org''s admins are the people who manage it: not its keys, nor who only looks, nor who has a role on an app');
savepoint people;
update auth.users set email = '' where id = '10000000-0000-4000-8000-000000000001';
select results_eq($$ select email from org.admins('a0000000-0000-4000-8000-000000000001') $$, array['bob@acme.test'], 'who has no address gets no mail');
update auth.users set deleted_at = now() where id = '10000000-0000-4000-8000-000000000002';
select is_empty($$ select from org.admins('a0000000-0000-4000-8000-000000000001') $$, 'nor does who was deleted');
alter table auth.users rename to people;
select is(tracking.email('10000000-0000-4000-8000-000000000001'), null, 'where there is no Supabase Auth, nobody has an address');
rollback to people;


-- Announcements

-- What is announced ahead of which event, given events as "org event", where they are 1 to 9.
create function tests.announced(sink text, variadic events text[])
  returns text[]
  language sql volatile
as $$
  select array(
    select right(a.org_id::text, 1) || right(a.event_id::text, 1) || ' ' || a.name
    from   tracking.announce_orgs(
             sink,
             array(select ('a0000000-0000-4000-8000-00000000000' || left(e, 1))::uuid from unnest(events) with ordinality as s (e, n) order by n),
             array(select ('019565a3-fa3b-7000-8000-00000000000' || right(e, 1))::uuid from unnest(events) with ordinality as s (e, n) order by n),
             array_fill('2025-03-05 09:30:00.123+00'::timestamptz, array[cardinality(events)])) as a
    order  by 1)
$$;

select is(tests.announced('posthog', '11', '12', '23'), array['11 Acme', '23 Evil'], 'an org is announced ahead of its first event');
select is(tests.announced('posthog', '23', '12', '11'), array['11 Acme', '23 Evil'], 'and ahead of that one only, wherever it stands');
select is(tests.announced('bento', '12'), array['12 Acme'], 'each sink for itself');
select is(tests.announced('posthog', '14'), array['14 Acme'], 'what no sink took goes ahead of the next event');
select is(tests.announced('posthog', '11'), array['11 Acme'], 'whichever comes');
select lives_ok($$ select tracking.confirm_orgs('posthog', '{a0000000-0000-4000-8000-000000000001}') $$, 'what a sink took');
select is(tests.announced('posthog', '14', '15'), '{}', 'is not announced again');
select is(tests.announced('bento', '18'), array['18 Acme'], 'what another took, is');
select is(tests.announced('posthog', '15', '11'), array['11 Acme'], 'but with the event that it went ahead of');
create temporary table ids as select announcement_id, announced_at from tracking.announce_orgs('posthog', '{a0000000-0000-4000-8000-000000000001}', '{019565a3-fa3b-7000-8000-000000000001}', '{"2025-03-05 09:30:00.123+00"}');
select is(announced_at, '2025-03-05 09:30:00.123+00'::timestamptz, 'at the time of that event') from ids;
select is(tracking.event_time(announcement_id), '2025-03-05 09:30:00.123+00'::timestamptz, 'with an id of that time') from ids;
select set_eq(
  $$ select announcement_id from tracking.announce_orgs('posthog', '{a0000000-0000-4000-8000-000000000001}', '{019565a3-fa3b-7000-8000-000000000001}', '{"2025-03-05 09:30:00.123+00"}') $$,
  'select announcement_id from ids', 'which is always the same');
update public.orgs set name = 'Acme Inc' where name = 'Acme';
select is(tests.announced('posthog', '16', '17'), array['16 Acme Inc'], 'a new name is announced with the next event');
select is(tests.announced('posthog', '11'), array['11 Acme Inc'], 'and as long as no sink took it, with whichever comes');
select tracking.confirm_orgs('posthog', '{a0000000-0000-4000-8000-000000000001}');
select is(tests.announced('posthog', '16'), '{}', 'and then no more');
select is(tests.announced('posthog', '91'), '{}', 'an org without a name is not announced');
savepoint evil;
delete from public.orgs where name = 'Evil';
select is(tests.announced('posthog', '24'), '{}', 'nor one that is no more');
rollback to evil;
update public.orgs set name = 'Acme' where name = 'Acme Inc';


-- Reactions

select throws_ok(format('insert into tracking.reactions (name, event, mail, preference, %s) values (''r'', ''e'', ''m'', ''p'', %s)', t.named, t.value), '23514', null, format('no reaction has %s %s', t.named, t.value))
from   (values ('at_most_every', '''1 month'''), ('at_most_every', '''1 year'''), ('at_most_every', '''0'''), ('max_age', '''0'''), ('tags', '''[]''')) as t (named, value);

create temporary table sent as select 'first' as name, tests.event() as event union all select 'second', tests.event() union all select 'beta', tests.event('{"app_id": "com.acme.beta"}');
select is(tests.mails('bento', (select event from sent where name = 'first'), (select event from sent where name = 'second')),
  array['app:updated ada@acme.test', 'app:updated bob@acme.test'], 'the first event of a window is the occasion for its mail');
select is(tests.mails('bento', (select event from sent where name = 'second')), '{}', 'no other event of the window is');
select is(tests.mails('bento', (select event from sent where name = 'second'), (select event from sent where name = 'first')),
  array['app:updated ada@acme.test', 'app:updated bob@acme.test'], 'the same event again is, as long as nobody says that it was sent');
select is(tests.mails('posthog', (select event from sent where name = 'first')), '{}', 'for the sink that claimed it');
select is(tests.mails('bento', (select event from sent where name = 'beta')), array['app:updated ada@acme.test', 'app:updated bob@acme.test'], 'each app has a mail of its own');
select set_eq(
  format('select details from tracking.mails_due(''bento'', jsonb_build_array(%L::jsonb))', (select event from sent where name = 'first')),
  array['{"org_id": "a0000000-0000-4000-8000-000000000001", "org_name": "Acme", "app_id": "com.acme.app", "app_name": "Acme App"}'::jsonb], 'it is told the org and the app, by id and name');

select tracking.mails_sent(s.sink, jsonb_build_array(jsonb_build_object('reaction', 'onboarding-step-done', 'actor_id', '10000000-0000-4000-8000-000000000001') || s.named
  || jsonb_build_object('scope_id', coalesce(s.named -> 'scope_id', t.event -> 'scope_id'), 'event_id', coalesce(s.named -> 'event_id', t.event -> 'event_id'))))
from   sent as t, (values ('posthog', '{}'::jsonb), ('bento', '{"reaction": "other"}'), ('bento', '{"scope_id": "a0000000-0000-4000-8000-000000000002"}'), ('bento', '{"event_id": "019565a3-fa3b-7000-8000-000000000001"}')) as s (sink, named)
where  t.name = 'first';
select is(tests.mails('bento', (select event from sent where name = 'first')), array['app:updated ada@acme.test', 'app:updated bob@acme.test'], 'that another mail was sent means nothing');
select tracking.mails_sent('bento', jsonb_build_array(event || '{"reaction": "onboarding-step-done", "actor_id": "10000000-0000-4000-8000-000000000001"}')) from sent where name = 'first';
select is(tests.mails('bento', (select event from sent where name = 'first')), array['app:updated bob@acme.test'], 'who was sent it does not get it again');
insert into tracking.role_bindings (principal_id, role, org_id) select id, 'admin', 'a0000000-0000-4000-8000-000000000001' from admins where email = 'cyd@acme.test';
select is(tests.mails('bento', (select event from sent where name = 'first')), array['app:updated bob@acme.test'], 'nor does who has become an admin since');
insert into tracking.mail_optouts (actor_id, preference) values ('10000000-0000-4000-8000-000000000002', 'onboarding'), ('10000000-0000-4000-8000-000000000001', 'news');
select is(tests.mails('bento', (select event from sent where name = 'first')), '{}', 'nor who has turned it off since');
select is(tests.mails('bento', tests.event('{"app_id": "com.acme.gamma"}')), array['app:updated ada@acme.test', 'app:updated cyd@acme.test'], 'who has turned it off is not among those to get the next; another kind makes no difference');

update tracking.reactions set channel = 'onboarding-v2', tags = '{"app_id": "com.acme.app"}';
select is(tests.mails('bento', tests.event('{"app_id": "com.acme.delta"}' || t.named::jsonb)), '{}', format('no mail for an event with %s', t.named))
from   (values
  ('{"event": "onboarding"}'), ('{"channel": "onboarding"}'), ('{"tags": {"step": "begun"}}'), ('{"app_id": null}'), ('{"org_id": "a0000000-0000-4000-8000-0000000000ff"}')) as t (named);
select is(tests.mails('bento', tests.event(jsonb_build_object('app_id', t.n, 'occurred_at', now() - t.happened, 'received_at', now() - t.received))), '{}',
  format('no mail for what happened %s ago, and was received %s ago', t.happened, t.received))
from   (values ('1', interval '3 days 1 second', interval '0'), ('2', interval '0', interval '3 days 1 second'), ('3', interval '400 days', interval '399 days')) as t (n, happened, received);
select is(cardinality(tests.mails('bento', tests.event(jsonb_build_object('app_id', 'old', 'occurred_at', now() - interval '3 days' + interval '1 minute')))), 2, 'but until then');
update tracking.reactions set enabled = false;
select is(tests.mails('bento', tests.event('{"app_id": "com.acme.epsilon"}')), '{}', 'no mail where it is turned off');
update tracking.reactions set enabled = true;

-- Sinks come and go, and a window keeps its mail.
create temporary table last as select tests.event('{"app_id": "com.acme.sinks"}') as event;
select is(cardinality(tests.mails('bento', (select event from last))), 2, 'a mail that a sink has claimed');
update tracking.sinks set name = 'mailer' where name = 'bento';
select is(cardinality(tests.mails('mailer', (select event from last))), 2, 'is its own under another name');
select tracking.create_sink('bento', 'bento');
select is(tests.mails('bento', (select event from last)), '{}', 'and not of one that has taken its name');
delete from tracking.sinks where name = 'mailer';
select is(tests.mails('bento', (select event from last)), '{}', 'nor when it is gone');

-- Windows: of the time of receipt, from the epoch on.
update tracking.reactions set at_most_every = '1 minute';
create function tests.received(at interval) returns jsonb language sql volatile as $$
  select tests.event(jsonb_build_object('app_id', 'com.acme.windows', 'received_at', date_trunc('minute', now()) - interval '1 hour' + at)) $$;
select is(cardinality(tests.mails('bento', tests.received('0 s'), tests.received('59.999999 s'), tests.received('60 s'), tests.received('-0.000001 s'))), 6, 'each window has its mail');
select is(cardinality(tests.mails('bento', tests.received('30 s'))), 0, 'and no other');

-- Claims do not pile up: those of windows that no event is young enough for go, unless somebody has still to get the mail.
insert into tracking.mail_claims (reaction, app_id, window_start, sink, scope_id, event_id, due)
select 'onboarding-step-done', 'com.acme.windows', now() - t.age, 'bento', gen_random_uuid(), gen_random_uuid(), t.due::uuid[]
from   (values (interval '3 days 2 minutes', '{}'), (interval '2 days 23 hours', '{}'), (interval '4 days', '{10000000-0000-4000-8000-000000000001}')) as t (age, due);
select tests.mails('bento', tests.received('30 s'));
select results_eq(
  $$ select (now() - window_start)::text from tracking.mail_claims where app_id = 'com.acme.windows' and window_start < now() - interval '2 days' order by 1 $$,
  array['2 days 23:00:00', '4 days'], 'claims that nobody can make again are forgotten');

-- The host's own people and orgs.
create or replace function org.admins(org_id uuid)
  returns table (actor_id uuid, email text)
  language sql stable security definer
as $$ values ('10000000-0000-4000-8000-000000000005'::uuid, 'host@nowhere.test') $$;
select is(tests.mails('bento', tests.event('{"app_id": "host"}')), array['app:updated host@nowhere.test'], 'a project with its own people replaces org.admins, and nothing else');

select * from finish();
rollback;
