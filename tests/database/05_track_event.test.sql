-- Chapter 5: a payload in, a row out. Each payload goes in by track_event and, the same again, by track_events.
begin;
select plan(354);

-- Everything that was ever raised or answered as an error.
create temporary table raised (message text);

-- What an RPC answers somebody, an error that was raised included.
create function tests.sent(caller text, rpc text, payload jsonb)
  returns jsonb
  language plpgsql volatile
as $$
declare
  v_answer  jsonb;
  v_message text;
  v_detail  text;
  v_hint    text;
begin
  perform tests.speak_as(caller);
  begin
    execute format('select public.%I($1)', rpc) into v_answer using payload;
  exception when others then
    get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
    v_answer := jsonb_build_object('error', jsonb_build_object('code', SQLSTATE, 'message', v_message, 'details', v_detail, 'hint', v_hint));
  end;
  perform tests.speak_as('owner');
  insert into raised
  select jsonb_path_query(v_answer, 'lax $.**.error') ->> 'message';
  return v_answer;
end $$;

-- Whom the log says that its events belong to, and empties it.
create function tests.attributed()
  returns text
  language plpgsql volatile
as $$
declare
  v_events text;
begin
  select string_agg(
           'by ' || coalesce(split_part(u.email, '@', 1), e.actor_id::text, 'nobody')
           || coalesce(' for ' || o.name, '') || coalesce(' about ' || e.app_id, '') || coalesce(' with ' || k.name, '')
           || case e.source when 'client' then '' else ' as ' || e.source end
           || case when e.tags ->> 'org_id' is distinct from e.org_id::text then ' but tags say ' || coalesce(e.tags ->> 'org_id', 'nothing') else '' end
           || case when e.scope_id = coalesce(e.org_id, e.actor_id) then '' else ' out of scope' end, ' and ')
  into   v_events
  from   events as e
  left   join auth.users as u on u.id = e.actor_id
  left   join orgs as o on o.id = e.org_id
  left   join api_keys as k on k.id = e.api_key_id;
  delete from events;
  return coalesce(v_events, 'nothing written');
end $$;

-- Sends a payload both ways, and tells what became of it: the error, or the row, and the warnings.
create function tests.told(caller text, payload jsonb)
  returns text
  language plpgsql volatile
as $$
declare
  v_one      jsonb := tests.sent(caller, 'track_event', payload);
  v_row      text := tests.attributed();
  v_batch    jsonb := tests.sent(caller, 'track_events', jsonb_build_array(payload));
  v_same_row text := tests.attributed();
begin
  v_batch := coalesce(v_batch #> '{results,0}', v_batch);
  if (v_one -> 'error', v_one -> 'warnings', v_row) is distinct from (v_batch -> 'error', v_batch -> 'warnings', v_same_row) then
    return format('track_event: %s %s, track_events: %s %s', v_one, v_row, v_batch, v_same_row);
  elsif v_one ? 'error' then
    return concat_ws(' ', v_one #>> '{error,code}', v_one #>> '{error,message}', nullif(v_row, 'nothing written'),
      case when v_one #>> '{error,details}' ~ '\.$' and v_one #>> '{error,hint}' ~ '\.$' then null else v_one -> 'error' end);
  end if;
  return concat_ws('; ', v_row, (select string_agg(w, ' ' order by n) from jsonb_array_elements_text(v_one -> 'warnings') with ordinality as w (w, n)));
end $$;


-- Who and for whom

insert into auth.users (id, email) values ('abcdef00-0000-4000-8000-000000000006', 'liz@acme.test'); -- an id with letters
create temporary table claims (rule text, caller text, payload jsonb, verdict text);
insert into claims
select c.rule, c.caller, '{"event": "Claimed"}' || c.payload::jsonb, c.verdict
from   (values
  -- version 2, an org and an app of it
  ('v2 org app', 'ada@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app"}}',   'by ada for Acme about com.acme.app'),
  ('v2 org app', 'ada@acme.test',       '{"tracking_version": "2", "org_id": "A0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.beta"}}', 'by ada for Acme about com.acme.beta'),
  ('v2 org app', 'bob@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app-id": "com.acme.app"}}',   'by bob for Acme about com.acme.app'),
  ('v2 org app', 'cyd@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app"}}',   'by cyd for Acme about com.acme.app'),
  ('v2 org app', 'as_local_demo_app',   '{"tracking_version": 2, "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11", "tags": {"app_id": "com.demo.app"}}',   'by ada for Demo about com.demo.app with demo_app'),
  ('v2 org app', 'as_local_acme_admin', '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app"}}',   'by ada for Acme about com.acme.app with acme_admin'),
  ('v2 org app', 'as_local_acme_admin', '{"tracking_version": 2, "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11", "tags": {"app_id": "com.demo.app"}}',   'PT403 no_permission'),
  ('v2 org app', 'cyd@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.beta"}}',  'PT403 no_permission'),
  ('v2 org app', 'ada@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.demo.app"}}',   'PT403 no_permission'),
  ('v2 org app', 'ada@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.none"}}',       'PT403 no_permission'),
  ('v2 org app', 'ada@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": ["com.acme.app"]}}', 'PT403 no_permission'),
  ('v2 org app', 'ada@acme.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.none", "app-id": "com.acme.app"}}', 'PT403 no_permission'),
  ('v2 org app', 'eve@evil.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app"}}',   'PT403 no_permission'),
  ('v2 org app', 'eve@evil.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.evil.app"}}',   'PT403 no_permission'),
  ('v2 org app', 'eve@evil.test',       '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000002", "tags": {"app_id": "com.acme.app"}}',   'PT403 no_permission'),
  -- version 2, an org and no app
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}', 'by ada for Acme'),
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}', 'by ada for Demo'),
  ('v2 org', 'bob@acme.test',           '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": ""}}', 'by bob for Acme'),
  ('v2 org', 'eve@evil.test',           '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000002", "tags": {"org_id": "a0000000-0000-4000-8000-000000000001"}}', 'by eve for Evil'),
  ('v2 org', 'as_local_acme_admin',     '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}', 'by ada for Acme with acme_admin'),
  ('v2 org', 'as_local_acme_admin',     '{"tracking_version": 2, "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}', 'PT403 no_permission'),
  ('v2 org', 'as_local_demo_app',       '{"tracking_version": 2, "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}', 'PT403 no_permission'),
  ('v2 org', 'cyd@acme.test',           '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v2 org', 'eve@evil.test',           '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v2 org', 'nik@nowhere.test',        '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-0000000000ff"}', 'PT403 no_permission'),
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "00000000-0000-0000-0000-000000000000"}', 'PT403 no_permission'),
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "10000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "Acme"}',                                 'PT403 no_permission'),
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "{a0000000-0000-4000-8000-000000000001}"}', 'PT403 no_permission'),
  ('v2 org', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001\n"}', 'PT403 no_permission'),
  -- version 2, no org, an app that the caller may read
  ('v2 app', 'ada@acme.test',           '{"tracking_version": 2, "tags": {"app_id": "com.acme.app"}}', 'by ada for Acme about com.acme.app'),
  ('v2 app', 'ada@acme.test',           '{"tracking_version": 2, "tags": {"app_id": "com.demo.app"}}', 'by ada for Demo about com.demo.app'),
  ('v2 app', 'ada@acme.test',           '{"tracking_version": 2, "tags": {"app_id": "", "app-id": "com.acme.app"}}', 'by ada for Acme about com.acme.app'),
  ('v2 app', 'ada@acme.test',           '{"tracking_version": 2, "tags": {"app_id": null, "app-id": "com.acme.app"}}', 'by ada for Acme about com.acme.app'),
  ('v2 app', 'ada@acme.test',           '{"tracking_version": 2, "tags": {"app_id": "com.acme.app", "app-id": "com.evil.app"}}', 'by ada for Acme about com.acme.app'),
  ('v2 app', 'ada@acme.test',           '{"tracking_version": 2, "org_id": "", "tags": {"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000002"}}', 'by ada for Acme about com.acme.app'),
  ('v2 app', 'cyd@acme.test',           '{"tracking_version": 2, "tags": {"app-id": "com.acme.app"}}', 'by cyd for Acme about com.acme.app'),
  ('v2 app', 'as_local_demo_app',       '{"tracking_version": 2, "tags": {"app_id": "com.demo.app"}}', 'by ada for Demo about com.demo.app with demo_app'),
  -- version 2, no org and no app that the caller may read
  ('v2 alone', 'ada@acme.test',         '{"tracking_version": 2}', 'by ada'),
  ('v2 alone', 'ada@acme.test',         '{"tracking_version": 2, "org_id": null, "tags": {"org_id": "a0000000-0000-4000-8000-000000000001"}}', 'by ada'),
  ('v2 alone', 'nik@nowhere.test',      '{"tracking_version": 2, "org_id": "", "user_id": "", "tags": null}', 'by nik'),
  ('v2 alone', 'as_local_demo_app',     '{"tracking_version": 2}', 'by ada with demo_app'),
  ('v2 alone', 'eve@evil.test',         '{"tracking_version": 2, "tags": {"app_id": "com.acme.app"}}', 'by eve; The event was not grouped: the caller may not read the app ''com.acme.app''.'),
  ('v2 alone', 'cyd@acme.test',         '{"tracking_version": 2, "tags": {"app_id": "com.acme.beta"}}', 'by cyd; The event was not grouped: the caller may not read the app ''com.acme.beta''.'),
  ('v2 alone', 'ada@acme.test',         '{"tracking_version": 2, "tags": {"app_id": "com.none"}}', 'by ada; The event was not grouped: the caller may not read the app ''com.none''.'),
  ('v2 alone', 'as_local_demo_app',     '{"tracking_version": 2, "tags": {"app_id": "com.acme.app"}}', 'by ada with demo_app; The event was not grouped: the caller may not read the app ''com.acme.app''.'),
  -- version 2, a user_id
  ('v2 user', 'ada@acme.test',          '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000004"}', 'by ada; user_id was ignored: the actor is the caller.'),
  ('v2 user', 'ada@acme.test',          '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000001"}', 'by ada; user_id was ignored: the actor is the caller.'),
  ('v2 user', 'ada@acme.test',          '{"tracking_version": 2, "user_id": "a0000000-0000-4000-8000-000000000001"}', 'by ada; user_id was ignored: the actor is the caller.'),
  ('v2 user', 'ada@acme.test',          '{"tracking_version": 2, "user_id": {"sub": "eve"}, "org_id": "a0000000-0000-4000-8000-000000000001"}', 'by ada for Acme; user_id was ignored: the actor is the caller.'),
  ('v2 user', 'eve@evil.test',          '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v2 user', 'as_local_acme_admin',    '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000002"}', 'by ada with acme_admin; user_id was ignored: the actor is the caller.'),
  -- version 1, no user_id or the actor's own
  ('v1 own', 'ada@acme.test',           '{}', 'by ada'),
  ('v1 own', 'ada@acme.test',           '{"tracking_version": 1}', 'by ada'),
  ('v1 own', 'ada@acme.test',           '{"tracking_version": "1", "user_id": "10000000-0000-4000-8000-000000000001"}', 'by ada'),
  ('v1 own', 'ada@acme.test',           '{"tracking_version": null, "user_id": ""}', 'by ada'),
  ('v1 own', 'ada@acme.test',           '{"tags": {"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000001"}}', 'by ada'),
  ('v1 own', 'as_local_acme_admin',     '{"user_id": "10000000-0000-4000-8000-000000000001"}', 'by ada with acme_admin'),
  ('v1 own', 'ada@acme.test',           '{"org_id": "a0000000-0000-4000-8000-000000000001"}', 'by ada; org_id was ignored: it belongs to tracking_version 2.'),
  ('v1 own', 'ada@acme.test',           '{"org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app"}}', 'by ada; org_id was ignored: it belongs to tracking_version 2.'),
  ('v1 own', 'eve@evil.test',           '{"org_id": "a0000000-0000-4000-8000-000000000001"}', 'by eve; org_id was ignored: it belongs to tracking_version 2.'),
  ('v1 own', 'liz@acme.test',           '{"user_id": "ABCDEF00-0000-4000-8000-000000000006"}', 'by liz'),
  -- version 1, an org in user_id
  ('v1 org', 'ada@acme.test',           '{"user_id": "a0000000-0000-4000-8000-000000000001"}', 'by ada for Acme'),
  ('v1 org', 'bob@acme.test',           '{"tracking_version": 1, "user_id": "A0000000-0000-4000-8000-000000000001", "tags": {"app-id": "com.acme.app"}}', 'by bob for Acme about com.acme.app'),
  ('v1 org', 'cyd@acme.test',           '{"user_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app"}}', 'by cyd for Acme about com.acme.app'),
  ('v1 org', 'as_local_demo_app',       '{"user_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11", "tags": {"app_id": "com.demo.app"}}', 'by ada for Demo about com.demo.app with demo_app'),
  ('v1 org', 'ada@acme.test',           '{"user_id": "a0000000-0000-4000-8000-000000000001", "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}', 'by ada for Acme; org_id was ignored: it belongs to tracking_version 2.'),
  ('v1 org', 'cyd@acme.test',           '{"user_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v1 org', 'eve@evil.test',           '{"user_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v1 org', 'eve@evil.test',           '{"user_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.evil.app"}}', 'PT403 no_permission'),
  ('v1 org', 'eve@evil.test',           '{"user_id": "10000000-0000-4000-8000-000000000001"}', 'PT403 no_permission'),
  ('v1 org', 'ada@acme.test',           '{"user_id": "ada"}', 'PT403 no_permission'),
  ('v1 org', 'ada@acme.test',           '{"user_id": 5}', 'PT403 no_permission'),
  ('v1 org', 'ada@acme.test',           '{"user_id": "00000000-0000-0000-0000-000000000000"}', 'PT403 no_permission'),
  -- the service role
  ('service', 'service',                '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000004", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'by eve for Acme as service'),
  ('service', 'service',                '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000002", "tags": {"app_id": "com.acme.app"}}', 'by bob for Acme about com.acme.app as service'),
  ('service', 'service',                '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app"}}', 'by nobody for Acme about com.acme.app as service'),
  ('service', 'service',                '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000002"}', 'by nobody for Evil as service'),
  ('service', 'service',                '{"tracking_version": 2, "tags": {"app_id": "com.evil.app"}}', 'by nobody for Evil about com.evil.app as service'),
  ('service', 'service',                '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000005"}', 'by nik as service'),
  ('service', 'service',                '{"tracking_version": 2, "user_id": "30000000-0000-4000-8000-000000000001"}', 'by 30000000-0000-4000-8000-000000000001 as service'),
  ('service', 'service',                '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000005", "tags": {"app_id": "com.none"}}', 'by nik as service; The event was not grouped: the caller may not read the app ''com.none''.'),
  ('service', 'service',                '{"tracking_version": 1, "user_id": "10000000-0000-4000-8000-000000000005"}', 'by nik as service'),
  ('service', 'service',                '{"user_id": "a0000000-0000-4000-8000-000000000001"}', 'by nobody for Acme as service'),
  ('service', 'service',                '{"user_id": "10000000-0000-4000-8000-000000000002", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'by bob for Acme as service'),
  ('service', 'service',                '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-0000000000ff"}', 'PT403 no_permission'),
  ('service', 'service',                '{"tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-0000000000ff"}', 'PT403 no_permission'),
  ('service', 'service',                '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.evil.app"}}', 'PT403 no_permission'),
  ('service', 'service',                '{"tracking_version": 2, "org_id": "Acme"}', 'PT403 no_permission'),
  ('service', 'service',                '{"tracking_version": 2}', 'PT400 missing_org_id'),
  ('service', 'service',                '{"tracking_version": 2, "tags": {"app_id": "com.none"}}', 'PT400 missing_org_id'),
  ('service', 'service',                '{"tracking_version": 2, "user_id": "ada", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT400 invalid_payload'),
  -- no credentials, or none that hold
  ('credentials', 'nobody',             '{"tracking_version": 2}', 'PT401 unauthenticated'),
  ('credentials', 'nobody',             '{"user_id": "10000000-0000-4000-8000-000000000001"}', 'PT401 unauthenticated'),
  ('credentials', 'as_local_unknown',   '{"tracking_version": 2}', 'PT401 invalid_api_key'),
  ('credentials', 'as_local_revoked',   '{"tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT401 invalid_api_key'),
  ('credentials', 'as_local_expired',   '{"tracking_version": 2}', 'PT401 invalid_api_key'),
  ('credentials', 'nobody',             '{"event": ""}', 'PT401 unauthenticated')
) as c (rule, caller, payload, verdict);
select is(tests.told(c.caller, c.payload), c.verdict, format('%s: %s sends %s', c.rule, c.caller, c.payload - 'event')) from claims as c;


-- What a payload may say

select is(tests.told('ada@acme.test', p.payload::jsonb), p.verdict, p.promise)
from   (values
  ('null',                                             'PT400 invalid_payload', 'an event is not null'),
  ('[]',                                               'PT400 invalid_payload', 'nor a list'),
  ('"Clicked"',                                        'PT400 invalid_payload', 'nor a string'),
  ('{}',                                               'PT400 missing_event', 'an event has a name'),
  ('{"event": null}',                                  'PT400 missing_event', 'which is not null'),
  ('{"event": ""}',                                    'PT400 missing_event', 'nor empty'),
  ('{"event": " \t\n\r\f\u000b"}',                    'PT400 missing_event', 'nor blank'),
  ('{"event": "\u00a0\u2003"}',                        'by ada', 'a space that is not ASCII is a character, here and in the table'),
  ('{"event": 5}',                                     'PT400 invalid_payload', 'nor a number'),
  ('{"event": ["Clicked"]}',                           'PT400 invalid_payload', 'nor a list of names'),
  ('{"event": "E", "channel": null}',                  'by ada', 'the channel may be null'),
  ('{"event": "E", "channel": ""}',                    'PT400 invalid_payload', 'and not empty'),
  ('{"event": "E", "channel": " \t\n\r\f\u000b"}',    'PT400 invalid_payload', 'nor blank'),
  ('{"event": "E", "channel": "\u00a0\u2003"}',        'by ada', 'by the same rule'),
  ('{"event": "E", "channel": 5}',                     'PT400 invalid_payload', 'nor a number'),
  ('{"event": "E", "description": 5}',                 'PT400 invalid_payload', 'a description is a string'),
  ('{"event": "E", "icon": {}}',                       'PT400 invalid_payload', 'so is an icon'),
  ('{"event": "E", "parser": true}',                   'PT400 invalid_payload', 'and a parser'),
  ('{"event": "E", "description": null, "icon": null, "parser": null, "notify": null, "notifyConsole": null}', 'by ada', 'or null'),
  ('{"event": "E", "notify": "true"}',                 'PT400 invalid_payload', 'notify is true or false'),
  ('{"event": "E", "notifyConsole": 1}',               'PT400 invalid_payload', 'so is notifyConsole'),
  ('{"event": "E", "notifyConsole": false}',           'by ada', 'false is as good as none'),
  ('{"event": "E", "tags": []}',                       'PT400 invalid_payload', 'tags are an object'),
  ('{"event": "E", "tags": "app_id"}',                 'PT400 invalid_payload', 'not a string'),
  ('{"event": "E", "nonPersonTags": 5}',               'PT400 invalid_payload', 'nonPersonTags are an object'),
  ('{"event": "E", "tags": null, "nonPersonTags": null}', 'by ada', 'or null'),
  ('{"event": "E", "org_id": 5}',                      'PT400 invalid_payload', 'org_id is a string'),
  ('{"event": "E", "tracking_version": 2, "org_id": {"id": 1}}', 'PT400 invalid_payload', 'not an object'),
  ('{"event": "E", "tracking_version": 3}',            'PT400 unsupported_tracking_version', 'there are two versions'),
  ('{"event": "E", "tracking_version": 0}',            'PT400 unsupported_tracking_version', 'no version 0'),
  ('{"event": "E", "tracking_version": "2.0"}',        'PT400 unsupported_tracking_version', 'none between'),
  ('{"event": "E", "tracking_version": ""}',           'PT400 unsupported_tracking_version', 'none that is empty'),
  ('{"event": "E", "tracking_version": [2]}',          'PT400 unsupported_tracking_version', 'and no list of them'),
  ('{"event": "E", "event_id": 5}',                    'PT400 invalid_payload', 'event_id is a string'),
  ('{"event": "E", "event_id": ""}',                   'PT400 invalid_payload', 'and not empty'),
  ('{"event": "E", "event_id": null, "timestamp": null, "sent_at": null, "user_id": null}', 'by ada', 'what is null is as good as absent'),
  ('{"event": "E", "sent_at": "yesterday"}',           'PT400 invalid_payload', 'sent_at is a time'),
  ('{"event": "E", "sent_at": 1741167000}',            'PT400 invalid_payload', 'not a number'),
  ('{"event": "E", "sent_at": "9999-01-01T00:00:00Z"}', 'PT400 invalid_payload', 'not one that no clock shows'),
  ('{"event": "E", "sent_at": "1900-01-01T00:00:00Z"}', 'PT400 invalid_payload', 'nor ever showed'),
  ('{"event": "E", "sent_at": "1970-01-01T00:00:00Z"}', 'by ada', 'but that of a clock that was never set'),
  ('{"event": "E", "evil": 1}',                        'by ada; The field "evil" was ignored: it is unknown.', 'an unknown field is ignored, with a warning'),
  ('{"event": "E", "evil": 1, "actor_id": "10000000-0000-4000-8000-000000000004", "source": "trigger", "txid": "1"}',
   'by ada; The field "evil" was ignored: it is unknown. The field "txid" was ignored: it is unknown. The field "source" was ignored: it is unknown. The field "actor_id" was ignored: it is unknown.',
   'and so are the columns that are the database''s'),
  ('{"event": "E", "tracking_version": 2, "evil": 1, "user_id": "eve", "tags": {"app_id": "com.none"}}',
   'by ada; user_id was ignored: the actor is the caller. The event was not grouped: the caller may not read the app ''com.none''. The field "evil" was ignored: it is unknown.',
   'every warning is given')
) as p (payload, verdict, promise);

select is(tests.told('ada@acme.test', null), 'PT400 invalid_payload', 'nothing at all is no event');
select is(
  jsonb_array_length(tests.sent('ada@acme.test', 'track_event', '{"event": "E", "a": 0, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0, "g": 0, "h": 0, "i": 0, "j": 0, "k": 0}') -> 'warnings'),
  10, 'ten unknown fields are warned of, and no more');
select is(
  tests.sent('ada@acme.test', 'track_event', jsonb_build_object('event', 'E', repeat('é', 101), 1)) #>> '{warnings,0}',
  'The field "' || repeat('é', 100) || '" was ignored: it is unknown.', 'by a hundred characters of their names');
delete from events;

-- The limits, to the character and to the byte.
select is(tests.told('ada@acme.test', '{"event": "E"}' || p.payload), p.verdict, p.promise)
from   (values
  (jsonb_build_object('event', repeat('é', 200)),                              'by ada', '200 characters are a name'),
  (jsonb_build_object('event', repeat('é', 201)),                              'PT400 invalid_payload', '201 are not'),
  (jsonb_build_object('channel', repeat('é', 100)),                            'by ada', '100 characters are a channel'),
  (jsonb_build_object('channel', repeat('é', 101)),                            'PT400 invalid_payload', '101 are not'),
  (jsonb_build_object('description', repeat('é', 3998), 'icon', 'é', 'parser', 'é'),  'by ada', '4,000 characters are description, icon and parser together'),
  (jsonb_build_object('description', repeat('é', 3998), 'icon', 'é', 'parser', 'éé'), 'PT400 invalid_payload', '4,001 are not'),
  (jsonb_build_object('tags', jsonb_build_object('a', repeat('x', 32757))),    'by ada', '32 KB of tags are let in'),
  (jsonb_build_object('tags', jsonb_build_object('a', repeat('x', 32758))),    'PT413 payload_too_large', 'a byte more is not'),
  (jsonb_build_object('tags', jsonb_build_object('a', repeat('x', 16378)), 'nonPersonTags', jsonb_build_object('a', repeat('x', 16372))), 'by ada', 'tags and nonPersonTags count together'),
  (jsonb_build_object('tags', jsonb_build_object('a', repeat('x', 16378)), 'nonPersonTags', jsonb_build_object('a', repeat('x', 16373))), 'PT413 payload_too_large', 'to the byte'),
  (jsonb_build_object('nonPersonTags', jsonb_build_object('a', repeat('é', 16379))), 'PT413 payload_too_large', 'and bytes are counted, not characters'),
  (jsonb_build_object('tags', jsonb_build_object('a', repeat('x', 32757), 'org_id', repeat('x', 99))), 'by ada', 'what is removed does not count'),
  (jsonb_build_object('tracking_version', 2, 'org_id', 'a0000000-0000-4000-8000-000000000001', 'tags', jsonb_build_object('a', repeat('x', 32757))), 'by ada for Acme', 'nor does what the database adds'),
  (jsonb_build_object('event_id', repeat('é', 200), 'timestamp', '2025-03-05T09:30:00Z'), 'by ada', '200 characters are an id'),
  (jsonb_build_object('event_id', repeat('é', 201), 'timestamp', '2025-03-05T09:30:00Z'), 'PT400 invalid_payload', '201 are not')
) as p (payload, verdict, promise);


-- The row

select is(
  tests.sent('as_local_acme_admin', 'track_event', '{
    "event": "App Updated", "channel": "app-updates", "description": "Version 1.2.3 is out.", "icon": "📲", "parser": "markdown", "notify": true,
    "tags": {"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000002", "plan": {"name": "solo"}}, "nonPersonTags": {"duration": 1.50},
    "org_id": "a0000000-0000-4000-8000-000000000001", "tracking_version": "2", "event_id": "019565A3-FA3B-7000-8000-000000000001",
    "timestamp": "2025-03-05T10:30:00.123+01:00", "sent_at": "2025-03-05T09:30:00.623Z", "notifyConsole": false}'),
  '{"status": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000001"}', 'the answer is the status and the event''s id');
select is(
  (select to_jsonb(e) - 'clock_skew' from events as e),
  jsonb_build_object(
    'scope_id', 'a0000000-0000-4000-8000-000000000001', 'occurred_at', '2025-03-05T09:30:00.123+00:00', 'event_id', '019565a3-fa3b-7000-8000-000000000001',
    'org_id', 'a0000000-0000-4000-8000-000000000001', 'actor_id', '10000000-0000-4000-8000-000000000001', 'app_id', 'com.acme.app',
    'api_key_id', '20000000-0000-4000-8000-000000000001', 'event', 'App Updated', 'channel', 'app-updates',
    'description', 'Version 1.2.3 is out.', 'icon', '📲', 'parser', 'markdown', 'notify', true,
    'tags', '{"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000001", "plan": {"name": "solo"}}'::jsonb, 'context', '{"duration": 1.50}'::jsonb,
    'tracking_version', 2, 'source', 'client', 'received_at', now(), 'txid', pg_current_xact_id()::text, 'epoch', 1),
  'every field of the payload is in its column, and the database''s are the database''s');
select is((select clock_skew from events), now() - '2025-03-05 09:30:00.623+00', 'sent_at tells how far the client''s clock is behind');
delete from events;
select is(tests.sent('ada@acme.test', 'track_event', '{"event": "Bare", "tags": {"org_id": "a0000000-0000-4000-8000-000000000001", "n": 1}}') ->> 'status', 'ok', 'a name is enough');
select is(
  (select to_jsonb(e) - array['event_id', 'occurred_at', 'received_at', 'txid'] from events as e),
  '{"scope_id": "10000000-0000-4000-8000-000000000001", "org_id": null, "actor_id": "10000000-0000-4000-8000-000000000001", "app_id": null, "api_key_id": null,
    "event": "Bare", "channel": "default", "description": null, "icon": null, "parser": null, "notify": false, "tags": {"n": 1}, "context": {},
    "tracking_version": 1, "source": "client", "clock_skew": null, "epoch": 1}',
  'the rest has its defaults, and tags name no org that was not verified');
delete from events;


-- Ids and time

-- When an event happened by the log, and its id where the payload had one.
create function tests.timed(payload jsonb)
  returns text
  language plpgsql volatile
as $$
declare
  v_answer jsonb := tests.sent('ada@acme.test', 'track_event', '{"event": "Timed"}' || payload);
  v_told   text;
begin
  if v_answer ? 'error' then
    return concat_ws(' ', v_answer #>> '{error,code}', v_answer #>> '{error,message}');
  end if;
  select concat_ws(' ', e.occurred_at at time zone 'UTC', case when payload ? 'event_id' then e.event_id end,
                   case when e.event_id::text is distinct from v_answer ->> 'event_id' then format('answered %s', v_answer) end)
  into strict v_told from events as e;
  delete from events;
  return v_told;
end $$;

select is(tests.timed(p.payload::jsonb), p.verdict, p.promise)
from   (values
  ('{"timestamp": "2025-03-05T09:30:00.123Z"}', '2025-03-05 09:30:00.123', 'an event may say when it happened'),
  ('{"timestamp": "2025-03-05T09:30:00.123999Z"}', '2025-03-05 09:30:00.123', 'to the millisecond'),
  ('{"timestamp": "2025-03-05T09:30:00.123+05:30"}', '2025-03-05 04:00:00.123', 'anywhere on earth'),
  ('{"timestamp": "2004-01-10T16:30:05.360Z"}', '2004-01-10 16:30:05.36', 'long ago'),
  ('{"timestamp": "1970-01-01T00:00:00Z"}', '1970-01-01 00:00:00', 'as long as clocks go back'),
  ('{"timestamp": "1969-12-31T23:59:59.999Z"}', 'PT400 timestamp_out_of_range', 'and no longer'),
  ('{"timestamp": "1969-12-31T23:59:59.999Z", "event_id": "order-4711"}', 'PT400 timestamp_out_of_range', 'with an id or without'),
  ('{"timestamp": "yesterday"}', 'PT400 timestamp_invalid', 'a word is no time'),
  ('{"timestamp": ""}', 'PT400 timestamp_invalid', 'nor is nothing'),
  ('{"timestamp": 1741167000}', 'PT400 timestamp_invalid', 'nor a number'),
  ('{"timestamp": "2025-02-29T00:00:00Z"}', 'PT400 timestamp_invalid', 'nor a day that was not'),
  ('{"timestamp": "infinity"}', 'PT400 timestamp_invalid', 'nor the end of days'),
  ('{"timestamp": "9999-12-31T23:59:59Z"}', 'PT400 timestamp_in_future', 'the future is not known'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001"}', '2025-03-05 09:30:00.123 019565a3-fa3b-7000-8000-000000000001', 'a UUIDv7 says it too'),
  ('{"event_id": "019565A3-FA3B-7FFF-BFFF-FFFFFFFFFFFF"}', '2025-03-05 09:30:00.123 019565a3-fa3b-7fff-bfff-ffffffffffff', 'in capitals as well'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001", "timestamp": "2025-03-05T09:30:00.123Z"}', '2025-03-05 09:30:00.123 019565a3-fa3b-7000-8000-000000000001', 'a timestamp may say the same'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001", "timestamp": "2025-03-05T09:30:00.124Z"}', '2025-03-05 09:30:00.123 019565a3-fa3b-7000-8000-000000000001', 'a millisecond later'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001", "timestamp": "2025-03-05T09:30:00.122Z"}', '2025-03-05 09:30:00.123 019565a3-fa3b-7000-8000-000000000001', 'or earlier'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001", "timestamp": "2025-03-05T09:30:00.124001Z"}', 'PT400 timestamp_mismatch', 'but not more'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001", "timestamp": "2025-03-05T09:30:00.121999Z"}', 'PT400 timestamp_mismatch', 'either way'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001", "timestamp": "2025-03-06T09:30:00.123Z"}', 'PT400 timestamp_mismatch', 'a day is more'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000001", "timestamp": "soon"}', 'PT400 timestamp_invalid', 'a timestamp is one, though nobody needs it'),
  ('{"event_id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}', 'PT400 timestamp_in_future', 'a UUIDv7 of the future is of the future'),
  ('{"event_id": "order-4711", "timestamp": "2025-03-05T09:30:00.123Z"}', '2025-03-05 09:30:00.123 019565a3-fa3b-7173-bd0d-dbff034193fa', 'another id becomes a UUIDv7, with the time'),
  ('{"event_id": "order-4711", "timestamp": "2025-03-05T10:30:00.123999+01:00"}', '2025-03-05 09:30:00.123 019565a3-fa3b-7173-bd0d-dbff034193fa', 'always the same one'),
  ('{"event_id": "b5e0f4a1-4c3d-4e2b-9a1f-0123456789ab", "timestamp": "2025-03-05T09:30:00.123Z"}', '2025-03-05 09:30:00.123 019565a3-fa3b-748e-b985-d1fb00b0c7d9', 'so does a UUIDv4'),
  ('{"event_id": "B5E0F4A1-4C3D-4E2B-9A1F-0123456789AB", "timestamp": "2025-03-05T09:30:00.123Z"}', '2025-03-05 09:30:00.123 019565a3-fa3b-748e-b985-d1fb00b0c7d9', 'in capitals the same one'),
  ('{"event_id": "019565a3-fa3b-7000-0000-000000000001", "timestamp": "2025-03-05T09:30:00.123Z"}', '2025-03-05 09:30:00.123 019565a3-fa3b-773e-b379-730bdb4845c2', 'and what only looks like a UUIDv7'),
  ('{"event_id": "order-4711"}', 'PT400 timestamp_required', 'but not without a time'),
  ('{"event_id": "b5e0f4a1-4c3d-4e2b-9a1f-0123456789ab"}', 'PT400 timestamp_required', 'a UUIDv4 has none'),
  ('{"event_id": "00000000-0000-0000-0000-000000000000", "timestamp": null}', 'PT400 timestamp_required', 'nor has the nil UUID'),
  ('{"event_id": "order-4711", "timestamp": "9999-12-31T23:59:59Z"}', 'PT400 timestamp_in_future', 'nor in the future')
) as p (payload, verdict, promise);

create function tests.iso(at timestamptz)
  returns text
  language sql stable
as $$ select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;
select is(
  tests.timed(jsonb_build_object('timestamp', tests.iso(now() + interval '24 hours'))),
  (date_trunc('milliseconds', now() + interval '24 hours') at time zone 'UTC')::text, '24 hours ahead are let in');
select is(
  tests.timed(jsonb_build_object('timestamp', tests.iso(now() + interval '24 hours 1 ms'))), 'PT400 timestamp_in_future', 'a millisecond more is not');
select matches(
  tests.timed(jsonb_build_object('event_id', tracking.new_event_id(now() + interval '24 hours'))), '^\d{4}-', 'a UUIDv7 may be 24 hours ahead too');
select is(
  tests.timed(jsonb_build_object('event_id', tracking.new_event_id(now() + interval '24 hours 1 ms'))), 'PT400 timestamp_in_future', 'but for a millisecond more');
select is(tests.told('ada@acme.test', '{"event": "Now"}'), 'by ada', 'an event that says nothing about it');
select is(tests.sent('ada@acme.test', 'track_event', '{"event": "Now"}') ->> 'status', 'ok', 'is taken as it comes');
select ok(
  occurred_at between date_trunc('milliseconds', now()) and clock_timestamp() and tracking.event_time(event_id) = occurred_at,
  'and happened now') from events;
delete from events;
select is(
  tests.sent('ada@acme.test', 'track_events', (select jsonb_agg(jsonb_build_object('event', n::text)) from generate_series(1, 1000) as n)) -> 'accepted', '1000',
  'a thousand events of one batch');
select is(
  (select array_agg(event::integer order by event_id) from events), (select array_agg(n) from generate_series(1, 1000) as n), 'are in order by their ids, no two the same');
delete from events;


-- One event id in a scope, one row

create function tests.results(answer jsonb)
  returns text
  language sql stable
as $$
  select coalesce(string_agg(coalesce(r #>> '{error,message}', r ->> 'result'), ' ' order by n), answer #>> '{error,message}')
  from   jsonb_array_elements(answer -> 'results') with ordinality as r (r, n)
$$;

select is(
  tests.sent('ada@acme.test', 'track_event', '{"event": "First", "event_id": "019565a3-fa3b-7000-8000-000000000001"}'),
  '{"status": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000001"}', 'an event is sent');
select is(
  tests.sent('ada@acme.test', 'track_event', '{"event": "Second", "event_id": "019565A3-FA3B-7000-8000-000000000001", "evil": 1}'),
  '{"status": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000001", "duplicate": true, "warnings": ["The field \"evil\" was ignored: it is unknown."]}',
  'sent again it is a duplicate');
select is(
  tests.sent('ada@acme.test', 'track_events', '[{"event": "Third", "event_id": "019565a3-fa3b-7000-8000-000000000001"}]'),
  '{"results": [{"result": "duplicate", "event_id": "019565a3-fa3b-7000-8000-000000000001"}], "accepted": 0, "duplicates": 1, "dropped": 0}',
  'also when it is sent by the other way');
select is(
  tests.sent('as_local_acme_admin', 'track_event', '{"event": "Fourth", "event_id": "019565a3-fa3b-7000-8000-000000000001"}') ->> 'duplicate', 'true',
  'or with a key of the same person');
select is(
  tests.outcome('ada@acme.test', $$ select tests.insert_event('{"scope_id": "10000000-0000-4000-8000-000000000001"}') $$),
  '23505 duplicate key value violates unique constraint "events_default_pkey"', 'a direct insert of it is refused');
select is(
  tests.sent('service', 'track_event', '{"event": "Fifth", "event_id": "019565a3-fa3b-7000-8000-000000000001", "user_id": "10000000-0000-4000-8000-000000000001"}') ->> 'duplicate',
  'true', 'and the service role does not write it twice either');
select results_eq('select event, source, api_key_id from events', $$ values ('First', 'client', null::uuid) $$, 'the first is the row');

select is(
  tests.sent('eve@evil.test', 'track_event', '{"event": "Mine", "event_id": "019565a3-fa3b-7000-8000-000000000001"}'),
  '{"status": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000001"}', 'in another scope it is another event');
select is(
  tests.sent('ada@acme.test', 'track_event', '{"event": "Ours", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "event_id": "019565a3-fa3b-7000-8000-000000000001"}'),
  '{"status": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000001"}', 'also where the same person speaks for an org');
select is(
  tests.sent('bob@acme.test', 'track_event', '{"event": "Theirs", "tracking_version": 2, "tags": {"app_id": "com.acme.app"}, "event_id": "019565a3-fa3b-7000-8000-000000000001"}') ->> 'duplicate',
  'true', 'and in an org it is the same, whoever sends it');
select bag_eq(
  'select event, scope_id from events',
  $$ values ('First', '10000000-0000-4000-8000-000000000001'::uuid), ('Mine', '10000000-0000-4000-8000-000000000004'), ('Ours', 'a0000000-0000-4000-8000-000000000001') $$,
  'one row in each scope');
delete from events;

select is(
  tests.results(tests.sent('ada@acme.test', 'track_events', '[
    {"event": "First", "event_id": "order-4711", "timestamp": "2025-03-05T09:30:00.123Z"},
    {"event": "Second", "event_id": "order-4711", "timestamp": "2025-03-05T09:30:00.123Z"},
    {"event": "Third", "event_id": "order-4711", "timestamp": "2025-03-05T11:30:00.123+02:00"},
    {"event": "Fourth", "event_id": "019565a3-fa3b-7173-bd0d-dbff034193fa"},
    {"event": "Another", "event_id": "order-4711", "timestamp": "2025-03-05T09:30:00.124Z"}]')),
  'ok duplicate duplicate duplicate ok', 'twice in a batch is once, by a derived id too, and by what it was derived to');
select is(
  tests.sent('ada@acme.test', 'track_event', '{"event": "Fifth", "event_id": "order-4711", "timestamp": "2025-03-05T09:30:00.123Z"}'),
  '{"status": "ok", "event_id": "019565a3-fa3b-7173-bd0d-dbff034193fa", "duplicate": true}', 'and once more is still once');
select bag_eq('select event from events', $$ values ('First'), ('Another') $$, 'the first in the batch is the row');
delete from events;

select is(
  tests.outcome('ada@acme.test', $$ select tests.insert_event('{"scope_id": "10000000-0000-4000-8000-000000000001"}') $$), 'inserted',
  'what was inserted directly');
select is(
  tests.sent('ada@acme.test', 'track_event', '{"event": "Again", "event_id": "019565a3-fa3b-7000-8000-000000000001"}') ->> 'duplicate', 'true',
  'is a duplicate when it is sent');
delete from events;

select is(
  tests.results(tests.sent('ada@acme.test', 'track_events', '[
    {"event": "", "event_id": "019565a3-fa3b-7000-8000-000000000001"},
    {"event": "Forged", "event_id": "019565a3-fa3b-7000-8000-000000000001", "user_id": "a0000000-0000-4000-8000-000000000002"},
    {"event": "Shown", "event_id": "019565a3-fa3b-7000-8000-000000000001", "tracking_version": 2, "notifyConsole": true},
    {"event": "Sound", "event_id": "019565a3-fa3b-7000-8000-000000000001"},
    {"event": "Late", "event_id": "019565a3-fa3b-7000-8000-000000000001"}]')),
  'missing_event no_permission missing_org_id ok duplicate', 'a refused event does not use its id up');
select is(
  tests.results(tests.sent('ada@acme.test', 'track_events', '[
    {"event": "Shown", "event_id": "019565a3-fa3b-7000-8000-000000000002", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "notifyConsole": true},
    {"event": "Kept", "event_id": "019565a3-fa3b-7000-8000-000000000002", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}]')),
  'ok ok', 'nor does one that is only shown');
select bag_eq('select event from events', $$ values ('Sound'), ('Kept') $$, 'and what is sound is written');
delete from events;
delete from realtime.messages;


-- A batch

select is(
  tests.sent('ada@acme.test', 'track_events', '[
    {"event": "One", "event_id": "019565a3-fa3b-7000-8000-000000000009", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"},
    {"channel": "nameless", "event_id": "019565a3-fa3b-7000-8000-000000000008"},
    {"event": "Three", "event_id": "019565a3-fa3b-7000-8000-000000000007", "evil": 1},
    5,
    {"event": "Five", "event_id": "019565a3-fa3b-7000-8000-000000000006", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000002"},
    {"event": "Six", "event_id": "019565a3-fa3b-7000-8000-000000000007"},
    {"event": "Seven", "event_id": "019565a3-fa3b-7000-8000-000000000005"}]'),
  '{"results": [
      {"result": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000009"},
      {"result": "drop", "error": {"code": "PT400", "message": "missing_event", "details": "The event has no name.", "hint": "Send the name of what happened as \"event\"."}},
      {"result": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000007", "warnings": ["The field \"evil\" was ignored: it is unknown."]},
      {"result": "drop", "error": {"code": "PT400", "message": "invalid_payload", "details": "An event is a JSON object.", "hint": "See the reference of track_event for the fields and their types."}},
      {"result": "drop", "error": {"code": "PT403", "message": "no_permission", "details": "The caller may not read the organization a0000000-0000-4000-8000-000000000002.", "hint": "Ask an admin of the organization for a role, or leave the organization out."}},
      {"result": "duplicate", "event_id": "019565a3-fa3b-7000-8000-000000000007"},
      {"result": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000005"}],
    "accepted": 3, "duplicates": 1, "dropped": 3}',
  'a batch is answered event by event, in the order sent; a bad one never fails the others');
select bag_eq(
  'select event, org_id from events',
  $$ values ('One', 'a0000000-0000-4000-8000-000000000001'::uuid), ('Three', null), ('Seven', null) $$,
  'and what was accepted is there');
delete from events;

select is(
  tests.sent('ada@acme.test', 'track_events', '[]'), '{"results": [], "accepted": 0, "duplicates": 0, "dropped": 0}',
  'an empty batch is a batch');
select is(tests.results(tests.sent('ada@acme.test', 'track_events', p.payload)), p.verdict, p.promise)
from   (values
  ('{"event": "E"}'::jsonb, 'invalid_payload', 'one event is none'),
  ('null', 'invalid_payload', 'null is none'),
  (null, 'invalid_payload', 'nothing is none'),
  ('"[]"', 'invalid_payload', 'a string is none'),
  ((select jsonb_agg('{"event": "E"}'::jsonb) from generate_series(1, 1001)), 'payload_too_large', '1,001 events are too many')
) as p (payload, verdict, promise);
select is(
  tests.sent('ada@acme.test', 'track_events', (select jsonb_agg('{"event": "E"}'::jsonb) from generate_series(1, 1001))),
  '{"error": {"code": "PT413", "message": "payload_too_large", "details": "The batch has 1001 events.", "hint": "Send less: tags and nonPersonTags together take up to 32 KB, a batch up to 1,000 events."}}',
  'and the answer says how many');
select is_empty('select from events', 'none of them was written');
select is(tests.results(tests.sent(t.caller, 'track_events', '[{"event": "E"}, {"event": "E"}]')), t.verdict, format('a batch of %s is %s as a whole', t.caller, t.verdict))
from   (values ('nobody', 'unauthenticated'), ('as_local_unknown', 'invalid_api_key'), ('as_local_revoked', 'invalid_api_key'), ('as_local_expired', 'invalid_api_key')) as t (caller, verdict);
select is(
  tests.sent('service', 'track_events', '[
    {"event": "A", "tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000002", "org_id": "a0000000-0000-4000-8000-000000000001"},
    {"event": "B", "tracking_version": 2, "user_id": "10000000-0000-4000-8000-000000000004"},
    {"event": "C", "tracking_version": 2}]') - 'results',
  '{"accepted": 2, "duplicates": 0, "dropped": 1}', 'the service role sends for many at once');
select bag_eq(
  'select event, actor_id, org_id, source from events',
  $$ values
    ('A', '10000000-0000-4000-8000-000000000002'::uuid, 'a0000000-0000-4000-8000-000000000001'::uuid, 'service'),
    ('B', '10000000-0000-4000-8000-000000000004', null, 'service') $$,
  'each as it was named');
delete from events;


-- The console

create temporary table broadcasts as
select b.caller, b.verdict, b.promise,
       tests.sent(b.caller, 'track_event', '{"event": "Build Progress", "tracking_version": 2, "notifyConsole": true}' || b.payload::jsonb) as answer
from   (values
  ('ada@acme.test', '{"org_id": "a0000000-0000-4000-8000-000000000001", "channel": "builds", "description": "Half way", "icon": "🏃", "tags": {"channel": "production", "bundle": "1.2.3"}}',
   'ok', 'a broadcast for an org'),
  ('cyd@acme.test', '{"tags": {"app_id": "com.acme.app"}}', 'ok', 'or for an app''s org'),
  ('ada@acme.test', '{"tracking_version": 1, "user_id": "a0000000-0000-4000-8000-000000000001", "evil": 1}', 'ok', 'also in version 1'),
  ('service', '{"org_id": "a0000000-0000-4000-8000-000000000002"}', 'ok', 'or by the service role'),
  ('eve@evil.test', '{"org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 Forbidden', 'an outsider does not speak in the console of the org'),
  ('cyd@acme.test', '{"org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT403 Forbidden', 'nor does somebody with a role on an app, in the org''s name'),
  ('ada@acme.test', '{"org_id": "nowhere"}', 'PT403 Forbidden', 'nor anybody in a console that is none'),
  ('ada@acme.test', '{}', 'PT400 missing_org_id', 'a broadcast needs an org'),
  ('eve@evil.test', '{"tags": {"app_id": "com.acme.app"}}', 'PT400 missing_org_id', 'and an app that the caller may not read gives none'),
  ('ada@acme.test', '{"org_id": "a0000000-0000-4000-8000-000000000001", "event": " "}', 'PT400 missing_event', 'what is shown has a name'),
  ('nobody', '{"org_id": "a0000000-0000-4000-8000-000000000001"}', 'PT401 unauthenticated', 'and somebody who says it')
) as b (caller, payload, verdict, promise);
select is(coalesce(b.answer ->> 'status', concat_ws(' ', b.answer #>> '{error,code}', b.answer #>> '{error,message}')), b.verdict, b.promise) from broadcasts as b;
select is(answer -> 'warnings', '["The field \"evil\" was ignored: it is unknown."]', 'a broadcast is warned of unknown fields, too') from broadcasts where promise = 'also in version 1';
select is_empty('select from events', 'a broadcast records nothing');
select bag_eq(
  $$ select topic, payload - array['id', 'timestamp'] as payload, (payload ->> 'timestamp')::timestamptz = now() as is_now, event, extension, private
     from   realtime.messages $$,
  $$ values
    ('cli-events:org:a0000000-0000-4000-8000-000000000001', '{"event": "Build Progress", "org_id": "a0000000-0000-4000-8000-000000000001", "channel": "builds",
      "description": "Half way", "icon": "🏃", "channel_name": "production", "bundle_name": "1.2.3"}'::jsonb, true, 'cli-activity', 'broadcast', true),
    ('cli-events:org:a0000000-0000-4000-8000-000000000001', '{"event": "Build Progress", "org_id": "a0000000-0000-4000-8000-000000000001", "channel": "default",
      "app_id": "com.acme.app"}', true, 'cli-activity', 'broadcast', true),
    ('cli-events:org:a0000000-0000-4000-8000-000000000001', '{"event": "Build Progress", "org_id": "a0000000-0000-4000-8000-000000000001", "channel": "default"}',
      true, 'cli-activity', 'broadcast', true),
    ('cli-events:org:a0000000-0000-4000-8000-000000000002', '{"event": "Build Progress", "org_id": "a0000000-0000-4000-8000-000000000002", "channel": "default"}',
      true, 'cli-activity', 'broadcast', true) $$,
  'it goes to the org''s private topic, once, with what a console shows');

select is(
  tests.outcome('eve@evil.test', $$
    insert into realtime.messages (topic, extension, event, payload, private)
    values ('cli-events:org:a0000000-0000-4000-8000-000000000001', 'broadcast', 'cli-activity', '{"event": "Forged"}', true) $$),
  '42501 new row violates row-level security policy for table "messages"', 'there is no other way to the console');

-- Realtime asks the policy so before somebody may listen.
create function tests.hears(caller text, topic text)
  returns text
  language plpgsql volatile
as $$
begin
  perform set_config('realtime.topic', topic, true);
  return tests.outcome(caller, 'select count(*) from realtime.messages');
end $$;
select is(tests.hears(t.caller, t.topic), t.heard, t.promise)
from   (values
  ('ada@acme.test',       'cli-events:org:a0000000-0000-4000-8000-000000000001', '3', 'ada hears Acme''s console'),
  ('bob@acme.test',       'cli-events:org:a0000000-0000-4000-8000-000000000001', '3', 'bob too'),
  ('eve@evil.test',       'cli-events:org:a0000000-0000-4000-8000-000000000002', '1', 'eve hears Evil''s, and only that'),
  ('eve@evil.test',       'cli-events:org:a0000000-0000-4000-8000-000000000001', '0', 'and not Acme''s'),
  ('ada@acme.test',       'cli-events:org:a0000000-0000-4000-8000-000000000002', '0', 'nor ada Evil''s'),
  ('cyd@acme.test',       'cli-events:org:a0000000-0000-4000-8000-000000000001', '0', 'an app is not the org'),
  ('nik@nowhere.test',    'cli-events:org:a0000000-0000-4000-8000-000000000001', '0', 'nik hears nothing'),
  ('nobody',              'cli-events:org:a0000000-0000-4000-8000-000000000001', '0', 'nobody neither'),
  ('ada@acme.test',       'cli-events:org:', '0', 'there is no console of all orgs'),
  ('ada@acme.test',       '', '0', 'nor one without a name')
) as t (caller, topic, heard, promise);

-- On Supabase it asks from a login of its own.
do $$
begin
  if to_regrole('supabase_admin') is null then
    create role supabase_admin superuser login;
  end if;
end $$;
set local session authorization supabase_admin;
select is(
  tests.hears('bob@acme.test', 'cli-events:org:a0000000-0000-4000-8000-000000000001'), '3', 'Realtime''s own login is answered the same');
select is(
  tests.hears('eve@evil.test', 'cli-events:org:a0000000-0000-4000-8000-000000000001'), '0', 'for everybody');
reset session authorization;
delete from realtime.messages;

drop function realtime.send(jsonb, text, text, boolean);
select is(
  tests.told('ada@acme.test', '{"event": "E", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "notifyConsole": true}'),
  'nothing written; Nothing was broadcast: the project has no Supabase Realtime.', 'where there is no Realtime, the answer says so');


-- A key's last use, to the minute

create function tests.last_use(before interval)
  returns interval
  language plpgsql volatile
as $$
begin
  update api_keys set last_used_at = now() - before where name = 'acme_admin';
  perform tests.sent('as_local_acme_admin', 'track_event', '{"event": "Used"}');
  return now() - (select last_used_at from api_keys where name = 'acme_admin');
end $$;
select is((select array_agg(name order by name) from api_keys where last_used_at = now()), '{acme_admin,demo_app}', 'a key''s use is noted');
select is(tests.last_use(null), interval '0', 'the first one');
select is(tests.last_use('61 seconds'), interval '0', 'and a later one');
select is(tests.last_use('59 seconds'), interval '59 seconds', 'but at most once a minute');
update api_keys set last_used_at = null;
select is(tests.sent('as_local_revoked', 'track_event', '{"event": "Used"}') #>> '{error,message}', 'invalid_api_key', 'a refused key is not used');
select is((select count(last_used_at) from api_keys), 0::bigint, 'at all');
delete from events;


-- Kinds of events

select results_eq(
  $$ select event, change from tracking.push_event_types($c${
    "Report Exported": {"channel": "reports", "icon": "📄", "scope": "org", "tags": {"format": ["csv", "pdf"], "rows?": "integer", "took?": "number", "by_mail?": "boolean", "title?": "string", "query?": "json"}},
    "step-*": {"scope": "actor", "tags": {"n": "integer"}},
    "step-by-step-*": {"scope": "actor"},
    "Old": {"scope": "app", "description": "No longer sent."}}$c$, 'enforce') $$,
  $$ values ('Old', 'added'), ('Report Exported', 'added'), ('step-*', 'added'), ('step-by-step-*', 'added') $$,
  'a project declares its kinds of events');
select is(
  tests.sent('ada@acme.test', 'track_event', jsonb_build_object('event', t.event, 'tags', t.tags, 'tracking_version', 2)) #>> '{error,details}', t.detail, t.promise)
from   (values
  ('Report Exported', '{"format": "csv"}'::jsonb, null, 'tags as declared are recorded'),
  ('Report Exported', '{"format": "pdf", "rows": 3, "took": 0.5, "by_mail": true, "title": "", "query": [{}]}', null, 'of every type'),
  ('Report Exported', '{"format": "pdf", "rows": 3.0, "took": 1e300, "query": null, "title": null}', null, 'one that may be left out may be null, and 3.0 is an integer'),
  ('Report Exported', '{"format": "pdf", "app_id": "com.acme.app", "org_id": "x"}', null, 'the app and the org need no declaration'),
  ('Report Exported', '{"format": "pdf", "app-id": "com.acme.app"}', null, 'in either spelling'),
  ('Report Exported', '{"format": "xls"}', 'The tag "format" of "Report Exported" is none of "csv", "pdf".', 'a value outside its enum is refused'),
  ('Report Exported', '{"format": ["csv"]}', 'The tag "format" of "Report Exported" is none of "csv", "pdf".', 'in an array as well'),
  ('Report Exported', '{"format": 1}', 'The tag "format" of "Report Exported" is none of "csv", "pdf".', 'or of another type'),
  ('Report Exported', '{}', 'The tag "format" of "Report Exported" is missing.', 'a tag that must be there is asked for'),
  ('Report Exported', null, 'The tag "format" of "Report Exported" is missing.', 'also where there are no tags'),
  ('Report Exported', '{"format": null}', 'The tag "format" of "Report Exported" is missing.', 'null is nothing'),
  ('Report Exported', '{"format": "csv", "colour": "red"}', 'The tag "colour" of "Report Exported" is unknown.', 'an unknown tag is refused'),
  ('Report Exported', '{"format": "csv", "colour": null}', 'The tag "colour" of "Report Exported" is unknown.', 'null as it may be'),
  ('Report Exported', '{"format": "csv", "rows?": 1}', 'The tag "rows?" of "Report Exported" is unknown.', 'the mark belongs to the declaration, not to the name'),
  ('Report Exported', '{"format": "csv", "rows": 3.5}', 'The tag "rows" of "Report Exported" is not an integer.', 'a wrong type is refused: part of a row'),
  ('Report Exported', '{"format": "csv", "rows": "3"}', 'The tag "rows" of "Report Exported" is not an integer.', 'a number in a string'),
  ('Report Exported', '{"format": "csv", "took": false}', 'The tag "took" of "Report Exported" is not a number.', 'no number'),
  ('Report Exported', '{"format": "csv", "by_mail": "true"}', 'The tag "by_mail" of "Report Exported" is not a boolean.', 'no boolean'),
  ('Report Exported', '{"format": "csv", "title": {}}', 'The tag "title" of "Report Exported" is not a string.', 'no string'),
  ('step-one', '{"n": 1}', null, 'a name with * stands for all that begin so'),
  ('step-one', '{"n": "1"}', 'The tag "n" of "step-one" is not an integer.', 'and binds them'),
  ('step-by-step-one', '{}', null, 'the longest goes first'),
  ('step-by-step-one', '{"n": 1}', 'The tag "n" of "step-by-step-one" is unknown.', 'and alone'),
  ('report exported', '{"colour": "red"}', null, 'an event of no kind is not looked at')
) as t (event, tags, detail, promise);
select is(
  tests.sent('service', 'track_event', '{"event": "step-one", "user_id": "10000000-0000-4000-8000-000000000001"}') #>> '{error}',
  '{"code": "PT400", "hint": "Send the tags that the kind of event has; tracking.event_types holds them.", "details": "The tag \"n\" of \"step-one\" is missing.", "message": "invalid_tags"}',
  'the service role is bound as well');
select is(
  tests.results(tests.sent('ada@acme.test', 'track_events', '[{"event": "step-one"}, {"event": "step-one", "tags": {"n": 1}}, {"event": ""}, {"event": "Free", "tags": {"n": "x"}}]')),
  'invalid_tags ok missing_event ok', 'one bad event does not fail the others');
select is(
  tests.outcome(t.caller, format('select tests.insert_event(%L)', jsonb_build_object('scope_id', tests.person('ada@acme.test'), 'event', 'step-one', 'tags', t.tags))), t.outcome, t.promise)
from   (values
  ('ada@acme.test', '{}'::jsonb, '42501 new row violates row-level security policy for table "events"', 'a direct insert is bound as well'),
  ('ada@acme.test', '{"n": 1}', 'inserted', 'and free to do right')) as t (caller, tags, outcome, promise);
select is(tests.outcome('ada@acme.test', 'select count(*) from tracking.event_types'), '42501 permission denied for table event_types', 'clients do not read the kinds');
delete from events;

select results_eq(
  $$ select event, change from tracking.push_event_types('{"Report Exported": {"tags": {"format": ["csv"], "rows?": "integer"}}, "step-*": {"scope": "actor", "tags": {"n": "integer"}}, "New": {}}', prune => true) $$,
  $$ values ('New', 'added'), ('Old', 'removed'), ('Report Exported', 'changed'), ('step-*', 'unchanged'), ('step-by-step-*', 'removed') $$,
  'a catalog is pushed again: what changed, what did not, and what it lacks');
select results_eq(
  $$ select event, scope, mode from tracking.event_types order by event $$,
  $$ values ('New', 'org', 'warn'), ('Report Exported', 'org', 'enforce'), ('step-*', 'actor', 'enforce') $$, 'each keeps its mode, and a new one warns');
select is(
  tests.sent('ada@acme.test', 'track_event', '{"event": "New", "colour": 1, "tags": {"a": 1, "b": 2}}') -> 'warnings',
  '["The tag \"a\" of \"New\" is unknown.", "The tag \"b\" of \"New\" is unknown.", "The field \"colour\" was ignored: it is unknown."]',
  'a warning for each fault, where the kind warns');
select is(
  jsonb_array_length(tests.sent('ada@acme.test', 'track_event', jsonb_build_object('event', 'New', 'tags', (select jsonb_object_agg(n, n) from generate_series(1, 20) as n))) -> 'warnings'),
  10, 'ten at most');
select is(count(*), 2::bigint, 'and the events are recorded') from events;
select lives_ok($$ select * from tracking.push_event_types('{"step-1": {}}', 'off') $$, 'a kind may be off');
delete from events;
select is(tests.told('ada@acme.test', '{"event": "step-1", "tags": {"x": 1}}'), 'by ada', 'an event of such a kind is not looked at, whatever a shorter name says');
delete from tracking.event_types;

create function tests.pushed(catalog jsonb, mode text default null)
  returns text
  language plpgsql volatile
as $$
declare
  v_detail text;
begin
  perform * from tracking.push_event_types(catalog, mode);
  return 'pushed';
exception when others then
  get stacked diagnostics v_detail = pg_exception_detail;
  return SQLSTATE || ' ' || SQLERRM || ' ' || v_detail;
end $$;
select is(tests.pushed(t.catalog, t.mode), '22023 invalid_catalog ' || t.detail, t.promise)
from   (values
  (null::jsonb, null, 'A catalog is an object of kinds of events by name.', 'no catalog is not one'),
  ('[]', null, 'A catalog is an object of kinds of events by name.', 'nor is an array'),
  ('{" ": {}}', null, '" ": a name is 1 to 200 characters, not blank.', 'a kind has a name'),
  ('{"*": {}}', null, '"*": a name is 1 to 200 characters, not blank.', 'more than a star'),
  ('{"E": 1}', null, '"E": a kind of event is an object.', 'and is an object'),
  ('{"E": {"colour": 1}}', null, '"E": the fields are channel, icon, scope, description and tags.', 'with these fields'),
  ('{"E": {"icon": 1}}', null, '"E": channel, icon, scope and description are strings.', 'of these types'),
  ('{"E": {"scope": null}}', null, '"E": channel, icon, scope and description are strings.', 'null is none'),
  ('{"E": {"scope": "team"}}', null, '"E": scope is actor, org or app.', 'and scopes'),
  ('{"E": {"tags": []}}', null, '"E": tags are string, number, integer, boolean, json, or an array of the strings that they may be.', 'tags are an object'),
  ('{"E": {"tags": {"t": "text"}}}', null, '"E": tags are string, number, integer, boolean, json, or an array of the strings that they may be.', 'of types'),
  ('{"E": {"tags": {"t": []}}}', null, '"E": tags are string, number, integer, boolean, json, or an array of the strings that they may be.', 'an enum is not empty'),
  ('{"E": {"tags": {"t": ["a", 1]}}}', null, '"E": tags are string, number, integer, boolean, json, or an array of the strings that they may be.', 'and has strings'),
  ('{"E": {"tags": {"?": "string"}}}', null, '"E": tags are string, number, integer, boolean, json, or an array of the strings that they may be.', 'and a tag has a name'),
  ('{"E": {"tags": {"t": null}}}', null, '"E": tags are string, number, integer, boolean, json, or an array of the strings that they may be.', 'and a type'),
  ('{"E": {}}', 'strict', '''strict'' is not a mode: off, warn or enforce.', 'there are three modes')
) as t (catalog, mode, detail, promise);
select is_empty('select from tracking.event_types', 'and nothing of it is kept');
select is(tests.outcome(c, 'select count(*) from tracking.push_event_types(''{}'')'), '42501 permission denied for function push_event_types', c || ' declares nothing') from unnest(array['ada@acme.test', 'as_local_acme_admin', 'nobody']) as c;


-- Reading on

select is(tests.outcome('ada@acme.test', 'select read_events() - ''cursor'''), '{"events": []}', 'without a cursor, reading begins now');
select is(
  tests.outcome('ada@acme.test', format('select read_events(%L)', t.after)),
  'PT400 invalid_payload', format('%s is no cursor', t.after))
from   (values ('{"seen": 1}'), ('{"seen": "3:1:"}'), ('{"seen": "a"}'), ('{"txid": "x"}'), ('{"event_id": "x"}')) as t (after);
select is(tests.outcome('ada@acme.test', format('select read_events(null, %s)', n)), 'PT400 invalid_payload', format('%s events are refused', n)) from unnest(array['0', '1001', 'null']) as n;


-- The rate limit, which counts by the clock's minute: not started where the minute is about to end.

select is(count(*), 0::bigint, 'without a limit nothing is counted') from tracking.rate_windows;
select pg_sleep(60 - extract(second from clock_timestamp())) where extract(second from clock_timestamp()) > 55;
update tracking.settings set events_per_minute = 3;
select is(tests.results(tests.sent('ada@acme.test', 'track_events', '[{"event": "1"}, {"event": ""}]')), 'ok missing_event', 'an actor sends as many as the limit');
select is(tests.sent('as_local_acme_admin', 'track_event', '{"event": "3"}') ->> 'status', 'ok', 'by key as well');
select is(
  tests.sent('ada@acme.test', 'track_event', '{"event": "4"}'),
  '{"error": {"code": "PT429", "message": "rate_limited", "details": "The limit is 3 events a minute.", "hint": "Wait for the next minute, or send in batches less often."}}',
  'and no more');
select is(tests.results(tests.sent('as_local_demo_app', 'track_events', '[{"event": "4"}]')), 'rate_limited', 'by another key neither');
select is(tests.sent('eve@evil.test', 'track_event', '{"event": "1"}') ->> 'status', 'ok', 'others are not held up');
select is(tests.results(tests.sent('eve@evil.test', 'track_events', '[{"event": "2"}, {"event": "3"}, {"event": "4"}]')), 'rate_limited', 'a batch is let in whole or not at all');
select is(tests.results(tests.sent('eve@evil.test', 'track_events', '{}')), 'invalid_payload', 'what is no batch is told so');
select is(tests.sent('service', 'track_events', (select jsonb_agg('{"event": "E", "user_id": "10000000-0000-4000-8000-000000000001"}'::jsonb) from generate_series(1, 4))) -> 'accepted', '4', 'the service role has no limit');
update tracking.rate_windows set minute = minute - interval '1 minute';
select is(tests.results(tests.sent('ada@acme.test', 'track_events', '[{"event": "1"}, {"event": "2"}, {"event": "3"}]')), 'ok ok ok', 'in the next minute it begins anew');
select bag_eq(
  $$ select event, count(*) from events where source = 'client' group by 1 $$,
  $$ values ('1', 3::bigint), ('2', 1), ('3', 2) $$, 'what was refused was not written');
delete from events;


-- Nothing was left out

select set_eq('select message from raised', 'select message from tracking.errors', 'every error that there is was met here, and no other');

select * from finish();
rollback;
