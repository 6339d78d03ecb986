-- migrate:up

-- Chapter 5: track_event.
--
-- A payload in, a row out. track_event and track_events are thin: both hand their payloads to
-- tracking.record_events, which works on the whole batch as one set, in one statement:
--
--   sent      the payloads, each with its id, its time, and its first fault, if it has one
--   claims    who and for whom: each distinct claim is judged once, by tracking.attribute
--   judged    sent and claims together, in the order of the ids
--   written   the rows that went into the log; duplicates do not
--   answers   one result each, in the order sent
--
-- A fault is an error's name and a sentence: array['missing_event', 'The event has no name.'].


-- Who and for whom ----------------------------------------------------------------------------------

create type tracking.attribution as (
  actor_id uuid,
  org_id   uuid,
  app_id   text,
  fault    text[],
  warnings text[]
);
comment on type tracking.attribution is 'The judgement of a claim: whom an event belongs to, or why it may not.';

-- Judges a claim. Version 2 names the organization in org_id; version 1 had one field, user_id, for the
-- person or the organization. An organization is attached only when the caller's right to it, or to one
-- of its apps, was checked. The service role alone may name an actor.
create function tracking.attribute(
  version text, org_id text, user_id text, app_id text, actor_id uuid, service boolean)
  returns tracking.attribution
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_result  tracking.attribution;
  v_claimed text := attribute.org_id;
  v_is_uuid constant text := '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';
begin
  v_result.actor_id := attribute.actor_id;

  if service then
    if user_id !~ v_is_uuid then
      v_result.fault := array['invalid_payload', 'user_id is not a UUID.'];
      return v_result;
    elsif version = '1' and v_claimed is null and org.read(user_id::uuid) then
      v_claimed := user_id;
    else
      v_result.actor_id := user_id;
    end if;
  elsif version = '2' then
    if user_id is not null then
      v_result.warnings := array['user_id was ignored: the actor is the caller.'];
    end if;
  else
    if v_claimed is not null then
      v_result.warnings := array['org_id was ignored: it belongs to tracking_version 2.'];
    end if;
    if user_id is null or lower(user_id) = attribute.actor_id::text then
      return v_result;
    end if;
    v_claimed := user_id;
  end if;

  if v_claimed is not null then
    if v_claimed !~ v_is_uuid then
      v_result.fault := array['no_permission', format('%L is not the id of an organization.', left(v_claimed, 100))];
    elsif attribute.app_id is null then
      if org.read(v_claimed::uuid) then
        v_result.org_id := v_claimed;
      else
        v_result.fault := array['no_permission', format('The caller may not read the organization %s.', v_claimed)];
      end if;
    elsif app.read(attribute.app_id) and app.owner_org(attribute.app_id) = v_claimed::uuid then
      v_result.org_id := v_claimed;
      v_result.app_id := attribute.app_id;
    else
      v_result.fault := array['no_permission', format('The caller may not read the app %L of the organization %s.', left(attribute.app_id, 100), v_claimed)];
    end if;
  elsif attribute.app_id is not null then
    if app.read(attribute.app_id) then
      v_result.org_id := app.owner_org(attribute.app_id);
      v_result.app_id := case when v_result.org_id is not null then attribute.app_id end;
    else
      v_result.warnings := array_append(v_result.warnings,
        format('The event was not grouped: the caller may not read the app %L.', left(attribute.app_id, 100)));
    end if;
  end if;

  if v_result.fault is null and v_result.actor_id is null and v_result.org_id is null then
    v_result.fault := array['missing_org_id', 'An event of the service role needs a user_id, an org_id or an app.'];
  end if;
  return v_result;
end $$;
comment on function tracking.attribute is 'Judges who an event is by and for, from what its payload claims.';
revoke execute on function tracking.attribute from public;


-- Who may come in -----------------------------------------------------------------------------------

create unlogged table tracking.rate_windows (
  actor_id uuid        not null,
  minute   timestamptz not null,
  events   integer     not null,
  primary key (actor_id)
);
comment on table tracking.rate_windows is 'How many events an actor has sent in the current minute, where settings.events_per_minute is set.';
comment on column tracking.rate_windows.minute is 'The minute that is counted.';
comment on column tracking.rate_windows.events is 'Events accepted so far in that minute.';
alter table tracking.rate_windows enable row level security;

-- Lets a client in, or raises: it must be somebody, and within the limit that the project has set.
create function tracking.admit(actor_id uuid, api_key_id uuid, events integer)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit integer;
  v_count integer;
begin
  if actor_id is null then
    if tracking.sent_api_key() is not null then
      perform tracking.raise_error('invalid_api_key', 'The API key that was sent is not valid.');
    end if;
    perform tracking.raise_error('unauthenticated', 'Nobody is signed in, and no API key was sent.');
  end if;

  select s.events_per_minute into v_limit from tracking.settings as s;
  if v_limit is not null then
    insert into tracking.rate_windows as w (actor_id, minute, events)
    values (admit.actor_id, date_trunc('minute', clock_timestamp()), admit.events)
    on conflict on constraint rate_windows_pkey do update
      set minute = excluded.minute,
          events = excluded.events + case when w.minute = excluded.minute then w.events else 0 end
    returning w.events into v_count;
    if v_count > v_limit then
      perform tracking.raise_error('rate_limited', format('The limit is %s events a minute.', v_limit));
    end if;
  end if;

  if api_key_id is not null then
    perform tracking.touch_api_key(api_key_id);
  end if;
end $$;
comment on function tracking.admit is 'Raises unauthenticated, invalid_api_key or rate_limited, or lets the client in.';
revoke execute on function tracking.admit from public;


-- The console ---------------------------------------------------------------------------------------

-- Shows an event in the consoles that listen to the organization, and records nothing. Answers with a
-- warning where the project has no Supabase Realtime.
create function tracking.broadcast_to_console(org_id uuid, app_id text, payload jsonb)
  returns text[]
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
    return array['Nothing was broadcast: the project has no Supabase Realtime.'];
  end if;
  perform realtime.send(
    jsonb_strip_nulls(jsonb_build_object(
      'event', payload -> 'event',
      'channel', coalesce(payload ->> 'channel', 'default'),
      'description', payload -> 'description',
      'icon', payload -> 'icon',
      'app_id', app_id,
      'org_id', org_id,
      'channel_name', payload #> '{tags,channel}',
      'bundle_name', payload #> '{tags,bundle}',
      'timestamp', now())),
    'cli-activity',
    'cli-events:org:' || org_id,
    true);
  return null;
end $$;
comment on function tracking.broadcast_to_console is 'Sends an event to the private realtime topic cli-events:org:<org_id>; answers with warnings.';
revoke execute on function tracking.broadcast_to_console from public;

do $$
begin
  if to_regclass('realtime.messages') is not null then
    create policy "people hear the console of their own orgs" on realtime.messages
      for select to authenticated
      using (
        extension = 'broadcast'
        and topic = (select realtime.topic())
        and topic = any (array(select 'cli-events:org:' || r.id from org.readable() as r (id)))
      );
  end if;
end $$;


-- What is wrong -------------------------------------------------------------------------------------
-- What the table would refuse is refused here first, in better words. The fields that every event has are
-- looked at in tracking.record_events itself, where that costs least; these, only where one is there.

create function tracking.fault_in_rare_fields(payload jsonb, occurred_at timestamptz, carries_time boolean)
  returns text[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sentence text;
  v_stated   timestamptz;
begin
  v_sentence := case
    when jsonb_typeof(payload -> 'description') not in ('string', 'null') then 'description is not a string.'
    when jsonb_typeof(payload -> 'icon') not in ('string', 'null') then 'icon is not a string.'
    when jsonb_typeof(payload -> 'parser') not in ('string', 'null') then 'parser is not a string.'
    when length(concat(payload ->> 'description', payload ->> 'icon', payload ->> 'parser')) > 4000
      then 'description, icon and parser take more than 4,000 characters.'
    when jsonb_typeof(payload -> 'notify') not in ('boolean', 'null') then 'notify is not a boolean.'
    when jsonb_typeof(payload -> 'notifyConsole') not in ('boolean', 'null') then 'notifyConsole is not a boolean.'
    when jsonb_typeof(payload -> 'event_id') not in ('string', 'null') then 'event_id is not a string.'
    when length(payload ->> 'event_id') not between 1 and 200 then 'event_id is empty, or longer than 200 characters.'
    when payload ->> 'sent_at' is not null and tracking.parse_time(payload ->> 'sent_at') is null then 'sent_at is not an ISO 8601 time.'
  end;
  if v_sentence is not null then
    return array['invalid_payload', v_sentence];
  end if;

  if payload ->> 'timestamp' is not null then
    v_stated := tracking.parse_time(payload ->> 'timestamp');
    if v_stated is null then
      return array['timestamp_invalid', 'timestamp is not an ISO 8601 time.'];
    elsif abs(date_part('epoch', v_stated - occurred_at)) > 0.001 then
      return array['timestamp_mismatch', 'timestamp and the time inside event_id differ by more than 1 ms.'];
    elsif v_stated < 'epoch' then
      return array['timestamp_out_of_range', 'The event is from before 1970.'];
    end if;
  elsif payload ->> 'event_id' is not null and not carries_time then
    return array['timestamp_required', 'The event_id is not a UUIDv7, and there is no timestamp.'];
  end if;
  return null;
end $$;
comment on function tracking.fault_in_rare_fields is 'The first fault in the fields of a payload that few events have: {name of the error, sentence}; or null.';
revoke execute on function tracking.fault_in_rare_fields from public;

-- Warnings for the fields of a payload that nothing reads.
create function tracking.warnings_for(unknown_fields jsonb)
  returns text[]
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select format('The field "%s" was ignored: it is unknown.', left(u.name, 100))
    from   jsonb_object_keys(unknown_fields) as u (name)
    limit  10
  );
end $$;
comment on function tracking.warnings_for is 'A sentence for each unknown field; ten at most.';
revoke execute on function tracking.warnings_for from public;

-- A fault as the error that PostgREST would answer with.
create function tracking.error_object(fault text[])
  returns jsonb
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object('code', e.code, 'message', e.message, 'details', fault[2], 'hint', e.hint)
    from   tracking.errors as e
    where  e.message = fault[1]
  );
end $$;
comment on function tracking.error_object is 'A fault as an error: {code, message, details, hint}.';
revoke execute on function tracking.error_object from public;

-- The set -------------------------------------------------------------------------------------------

-- Records a batch and answers for each event, in order:
--   {"results": [{"result": "ok" | "duplicate" | "drop", "event_id", "warnings", "error"}, …],
--    "accepted": n, "duplicates": n, "dropped": n}
-- Security definer: the caller's rights are asked once for each claim here, not once for each row. Rows
-- are written in the order of their ids, so that two batches with the same events cannot deadlock.
-- One plan serves all batches, so it must suit large ones: no nested loops but where nothing else goes.
create function tracking.record_events(payloads jsonb)
  returns jsonb
  language plpgsql volatile security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_nestloop = off
  set enable_mergejoin = off
as $$
declare
  v_fields      constant text[] := '{event,channel,description,icon,parser,notify,tags,nonPersonTags,org_id,user_id,tracking_version,timestamp,event_id,sent_at,notifyConsole}';
  v_rare_fields constant text[] := '{description,icon,parser,notify,notifyConsole,timestamp,event_id,sent_at}';
  v_service     constant boolean := tracking.is_service();
  v_now         constant timestamptz := date_trunc('milliseconds', clock_timestamp());
  v_first_id    constant text := tracking.new_event_id(v_now); -- ids made here differ by their place in the batch
  v_actor       uuid;
  v_api_key     uuid;
  v_answer      jsonb;
begin
  if not v_service then
    v_actor := tracking.actor();
    v_api_key := tracking.api_key();
    perform tracking.admit(v_actor, v_api_key, case when jsonb_typeof(payloads) = 'array' then jsonb_array_length(payloads) else 0 end);
  end if;
  if jsonb_typeof(payloads) is distinct from 'array' then
    perform tracking.raise_error('invalid_payload', 'A batch is an array of events.');
  elsif jsonb_array_length(payloads) > 1000 then
    perform tracking.raise_error('payload_too_large', format('The batch has %s events.', jsonb_array_length(payloads)));
  end if;

  with sent as materialized (
    select t.n, t.payload, t.tags, t.context, t.occurred_at,
           coalesce(t.payload ->> 'tracking_version', '1') as version,
           coalesce(t.payload ->> 'org_id', '') as org_id,
           coalesce(t.payload ->> 'user_id', '') as user_id,
           coalesce(nullif(t.tags ->> 'app_id', ''), t.tags ->> 'app-id', '') as app_id,
           case
             when t.v7 is not null then t.v7
             when t.payload ->> 'event_id' is null and t.occurred_at = v_now
               then overlay(v_first_id placing lpad(to_hex(t.n), 3, '0') from 16)::uuid
             when t.occurred_at < 'epoch' then null
             when t.payload ->> 'event_id' is null then tracking.new_event_id(t.occurred_at, t.n::integer)
             else tracking.derived_event_id(t.payload ->> 'event_id', t.occurred_at)
           end as event_id,
           case
             when jsonb_typeof(t.payload) <> 'object' then array['invalid_payload', 'An event is a JSON object.']
             when coalesce(t.payload ->> 'event', '') !~ '\S' then array['missing_event', 'The event has no name.']
             when jsonb_typeof(t.payload -> 'event') <> 'string' then array['invalid_payload', 'event is not a string.']
             when length(t.payload ->> 'event') > 200 then array['invalid_payload', 'event is longer than 200 characters.']
             when jsonb_typeof(t.payload -> 'channel') not in ('string', 'null') then array['invalid_payload', 'channel is not a string.']
             when t.payload ->> 'channel' !~ '\S' then array['invalid_payload', 'channel is blank.']
             when length(t.payload ->> 'channel') > 100 then array['invalid_payload', 'channel is longer than 100 characters.']
             when t.payload ->> 'tracking_version' not in ('1', '2')
               then array['unsupported_tracking_version', format('%L is not a tracking version.', left(t.payload ->> 'tracking_version', 20))]
             when jsonb_typeof(t.payload -> 'org_id') not in ('string', 'null') then array['invalid_payload', 'org_id is not a string.']
             when jsonb_typeof(t.payload -> 'tags') not in ('object', 'null') then array['invalid_payload', 'tags is not an object.']
             when jsonb_typeof(t.payload -> 'nonPersonTags') not in ('object', 'null') then array['invalid_payload', 'nonPersonTags is not an object.']
             when octet_length(concat(t.tags - 'org_id', t.context)) > 32768 then array['payload_too_large', 'tags and nonPersonTags take more than 32 KB.']
             when t.occurred_at > now() + interval '24 hours' then array['timestamp_in_future', 'The event is more than 24 hours ahead of the server.']
             when t.payload ?| v_rare_fields then tracking.fault_in_rare_fields(t.payload, t.occurred_at, t.v7 is not null)
           end as fault
    from   (
      select v.n, v.payload, v.v7,
             case when jsonb_typeof(v.payload -> 'tags') = 'object' then v.payload -> 'tags' else '{}' end as tags,
             case when jsonb_typeof(v.payload -> 'nonPersonTags') = 'object' then v.payload -> 'nonPersonTags' else '{}' end as context,
             coalesce(
               tracking.event_time(v.v7),
               date_trunc('milliseconds', tracking.parse_time(v.payload ->> 'timestamp')),
               v_now) as occurred_at
      from   (
        select s.n, s.payload, tracking.uuid_v7_in(s.payload ->> 'event_id') as v7
        from   jsonb_array_elements(payloads) with ordinality as s (payload, n)
        offset 0
      ) as v
      offset 0
    ) as t
  ),
  claims as materialized (
    select c.*, a.*, jsonb_build_object('org_id', a.group_id) as org_tag
    from   (select distinct s.version, s.org_id, s.user_id, s.app_id from sent as s where s.fault is null) as c
    cross  join lateral tracking.attribute(
             c.version, nullif(c.org_id, ''), nullif(c.user_id, ''), nullif(c.app_id, ''), v_actor, v_service
           ) as a (actor_id, group_id, group_app, claim_fault, warnings)
  ),
  judged as materialized (
    select s.n, s.payload, s.context, s.version, s.occurred_at, s.event_id,
           c.actor_id, c.group_id as org_id, c.group_app as app_id, c.warnings,
           coalesce(c.group_id, c.actor_id) as scope_id,
           case when c.group_id is null then s.tags - 'org_id' else s.tags || c.org_tag end as tags,
           console.asked as console,
           case
             when s.fault is not null then s.fault
             when console.asked and c.claim_fault[1] = 'no_permission' then array['Forbidden', c.claim_fault[2]]
             when c.claim_fault is not null then c.claim_fault
             when console.asked and c.group_id is null then array['missing_org_id', 'A broadcast needs an organization.']
           end as fault,
           row_number() over (
             partition by s.fault is null and c.claim_fault is null and not console.asked, coalesce(c.group_id, c.actor_id), s.event_id
             order by s.n
           ) as occurrence
    from   sent as s
    left   join claims as c using (version, org_id, user_id, app_id)
    cross  join lateral (select coalesce(s.payload -> 'notifyConsole' = 'true', false)) as console (asked)
  ),
  written as (
    insert into public.events (
      scope_id, occurred_at, event_id, org_id, actor_id, app_id, api_key_id, event, channel,
      description, icon, parser, notify, tags, context, tracking_version, source, clock_skew)
    select j.scope_id, j.occurred_at, j.event_id, j.org_id, j.actor_id, j.app_id, v_api_key,
           j.payload ->> 'event', coalesce(j.payload ->> 'channel', 'default'),
           j.payload ->> 'description', j.payload ->> 'icon', j.payload ->> 'parser',
           coalesce((j.payload ->> 'notify')::boolean, false), j.tags, j.context, j.version::smallint,
           case when v_service then 'service' else 'client' end,
           now() - tracking.parse_time(j.payload ->> 'sent_at')
    from   judged as j
    where  j.fault is null
    and    j.occurrence = 1
    and    not j.console
    on     conflict do nothing
    returning scope_id, event_id
  ),
  answers as (
    select j.n, j.event_id, j.fault,
           case
             when j.fault is not null then 'drop'
             when j.console then 'ok'
             when j.occurrence = 1 and (j.scope_id, j.event_id) in (select w.scope_id, w.event_id from written as w) then 'ok'
             else 'duplicate'
           end as result,
           case when j.fault is null then
             j.warnings
             || tracking.warnings_for(nullif(j.payload - v_fields, '{}'))
             || case when j.console then tracking.broadcast_to_console(j.org_id, j.app_id, j.payload) end
           end as warnings
    from   judged as j
  )
  select jsonb_build_object(
           'results', coalesce(jsonb_agg(
             case
               when a.fault is not null then jsonb_build_object('result', a.result, 'error', tracking.error_object(a.fault))
               when a.warnings <> '{}' then jsonb_build_object('result', a.result, 'event_id', a.event_id, 'warnings', a.warnings)
               else jsonb_build_object('result', a.result, 'event_id', a.event_id)
             end
             order by a.n), '[]'),
           'accepted', count(*) filter (where a.result = 'ok'),
           'duplicates', count(*) filter (where a.result = 'duplicate'),
           'dropped', count(*) filter (where a.result = 'drop'))
  into   v_answer
  from   answers as a;
  return v_answer;
end $$;
comment on function tracking.record_events is 'Behind track_event and track_events: records what is sound, and says of each event what became of it.';
revoke execute on function tracking.record_events from public;
grant execute on function tracking.record_events to anon, authenticated, service_role;


-- The RPCs ------------------------------------------------------------------------------------------

create function public.track_event(v2 jsonb)
  returns jsonb
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_result jsonb := tracking.record_events(jsonb_build_array(v2)) #> '{results,0}';
  v_error  jsonb := v_result -> 'error';
begin
  if v_error is not null then
    raise exception using
      errcode = v_error ->> 'code',
      message = v_error ->> 'message',
      detail = v_error ->> 'details',
      hint = v_error ->> 'hint';
  end if;
  return v_result - 'result'
    || case v_result ->> 'result' when 'duplicate' then '{"status": "ok", "duplicate": true}'::jsonb else '{"status": "ok"}' end;
end $$;
comment on function public.track_event is
  'Records one event: {event, channel, description, icon, parser, notify, tags, nonPersonTags, org_id, user_id, tracking_version, timestamp, event_id, sent_at, notifyConsole}. Answers {status, event_id, duplicate, warnings}. Errors: those of tracking.errors.';
revoke execute on function public.track_event from public, anon, authenticated, service_role;
grant execute on function public.track_event to anon, authenticated, service_role;

create function public.track_events(v2 jsonb)
  returns jsonb
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.record_events(v2);
end $$;
comment on function public.track_events is
  'Records up to 1,000 events, each as track_event does. Answers {results: [{result, event_id, warnings, error}], accepted, duplicates, dropped}; one bad event never fails the others. Errors: unauthenticated, invalid_api_key, rate_limited, invalid_payload, payload_too_large.';
revoke execute on function public.track_events from public, anon, authenticated, service_role;
grant execute on function public.track_events to anon, authenticated, service_role;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
