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
-- A fault is an error's name and a sentence: array['missing_event', 'The event has no name.']; those of old data, which
-- are none of tracking.errors, have the way out besides.


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
-- person or the organization. The service role alone may name an actor. An organization is attached only
-- where the caller's own rights lead to it: through the app that was named, or else directly.
create function tracking.attribute(
  version text, org_id text, user_id text, app_id text, actor_id uuid, service boolean)
  returns tracking.attribution
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_uuid  constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
  v_claimed  text := lower(attribute.org_id);
  v_reached  uuid;
  v_warnings text[];
begin
  if service then
    if user_id !~* v_is_uuid then
      return row(null, null, null, array['invalid_payload', 'user_id is not a UUID.'], null)::tracking.attribution;
    elsif version = '1' and v_claimed is null and org.read(user_id::uuid) then
      v_claimed := lower(user_id);
    else
      actor_id := user_id;
    end if;
  elsif version = '1' then
    if v_claimed is not null then
      v_warnings := array['org_id was ignored: it belongs to tracking_version 2.'];
    end if;
    v_claimed := nullif(lower(user_id), actor_id::text);
    if v_claimed is null then
      return row(actor_id, null, null, null, v_warnings)::tracking.attribution;
    end if;
  elsif user_id is not null then
    v_warnings := array['user_id was ignored: the actor is the caller.'];
  end if;

  v_reached := case
    when app_id is not null then case when app.read(app_id) then app.owner_org(app_id) end
    when v_claimed ~ v_is_uuid then case when org.read(v_claimed::uuid) then v_claimed::uuid end
  end;
  if v_claimed <> v_reached::text or (v_reached is null and coalesce(v_claimed, app_id) is not null) then
    if v_claimed is null then
      v_warnings := v_warnings || format('The event was not grouped: the caller may not read the app %L.', left(app_id, 100));
    else
      return row(actor_id, null, null, array['no_permission', case
        when v_claimed !~ v_is_uuid then format('%L is not the id of an organization.', left(v_claimed, 100))
        when app_id is null then format('The caller may not read the organization %s.', v_claimed)
        else format('The caller may not read the app %L of the organization %s.', left(app_id, 100), v_claimed)
      end], v_warnings)::tracking.attribution;
    end if;
  end if;
  if service and coalesce(actor_id, v_reached) is null then
    return row(null, null, null, array['missing_org_id', 'An event of the service role needs a user_id, an org_id or an app.'], null)::tracking.attribution;
  end if;
  return row(actor_id, v_reached, case when v_reached is not null then app_id end, null, v_warnings)::tracking.attribution;
end $$;
comment on function tracking.attribute is 'Judges who an event is by and for, from what its payload claims.';
revoke execute on function tracking.attribute from public;

-- Judges a row of old data, in which user_id was a person's id or an organization's. The host's own tables say which;
-- what they do not know is undecided, unless whoever imports it says how unknown_as is meant: actor, org or skip; and
-- who was erased (chapter 9.1) stays so. An app or another organization that is no more keeps no event out: the row
-- loses it, and its tags still say it.
create function tracking.attribute_history(user_id text, actor_id text, org_id text, app_id text, unknown_as text)
  returns tracking.attribution
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_person   uuid := tracking.person_known_as(user_id);
  v_org      uuid := org.known_as(user_id);
  v_owner    uuid := app.owner_org(app_id);
  v_fault    text[];
  v_warnings text[];
begin
  v_fault := case
    when tracking.was_erased(array[user_id, actor_id, org_id, v_person::text, v_owner::text]) then array[
      'erased', 'The person or the organization was erased.', 'Nothing old is recorded of who was erased: leave such rows out.']
    when num_nonnulls(v_person, v_org) = 2 then array[
      'user_ambiguous', format('%s is a person and an organization.', user_id),
      'Name the organization in org_id, or the person in actor_id, instead of user_id.']
    when user_id is null or num_nonnulls(v_person, v_org) = 1 then null
    when user_id like '%@%' then array[
      'email_unknown', 'user_id is an address for mail, and nobody''s.',
      'Replace tracking.person_known_as where your own tables know it.']
    when not tracking.is_uuid(user_id) or user_id = '00000000-0000-0000-0000-000000000000' then array[
      'user_anonymous', format('%L is no id of a person or an organization.', left(user_id, 100)),
      'Replace tracking.person_known_as or org.known_as where your own tables know it.']
    when unknown_as = 'skip' then array[
      'user_unknown', format('%s is neither a person nor an organization.', user_id),
      'Import it again once it is one, or say what such ids are: actor or org.']
  end;
  if v_fault is not null then
    return row(null, null, null, v_fault, null)::tracking.attribution;
  elsif num_nonnulls(v_person, v_org) = 0 then
    v_person := case when unknown_as = 'actor' then user_id end;
    v_org := case when unknown_as = 'org' then user_id end;
  end if;

  v_person := coalesce(v_person, tracking.person_known_as(actor_id));
  if v_org is null and org_id is not null then
    v_org := org.known_as(org_id);
    if v_org is null then
      v_warnings := array['The organization was left out: there is no such one.'];
    end if;
  end if;
  v_org := coalesce(v_org, v_owner);
  if num_nonnulls(v_person, v_org) = 0 then
    return row(null, null, null, array[
      'user_missing', 'The row names neither a person nor an organization.',
      'Name a person or an organization in user_id, or an app in tags.app_id.'], null)::tracking.attribution;
  elsif app_id is not null and (v_owner = v_org) is not true then
    v_warnings := v_warnings || array['The app is a tag alone: there is no such one, or it is another organization''s.'];
  end if;
  return row(v_person, v_org, case when v_owner = v_org then app_id end, null, v_warnings)::tracking.attribution;
end $$;
comment on function tracking.attribute_history is
  'Judges who a row of old data is by and for, from the ids that it has. Faults: user_unknown, email_unknown, user_anonymous, user_ambiguous, user_missing, erased.';
revoke execute on function tracking.attribute_history from public;


-- How much -------------------------------------------------------------------------------------------

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

-- Counts events against an actor's limit.
create function tracking.limit_rate(actor_id uuid, events integer, events_per_minute integer)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  insert into tracking.rate_windows as w (actor_id, minute, events)
  values (limit_rate.actor_id, date_trunc('minute', clock_timestamp()), limit_rate.events)
  on conflict on constraint rate_windows_pkey do update
    set minute = excluded.minute,
        events = excluded.events + case when w.minute = excluded.minute then w.events else 0 end
  returning w.events into v_count;
  if v_count > events_per_minute then
    perform tracking.raise_error('rate_limited', format('The limit is %s events a minute.', events_per_minute));
  end if;
end $$;
comment on function tracking.limit_rate is 'Raises rate_limited, and so undoes the batch, where an actor has sent more in this minute than the settings allow.';
revoke execute on function tracking.limit_rate from public;


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

create function tracking.fault_in_rare_fields(payload jsonb, stated timestamptz, occurred_at timestamptz, carries_time boolean)
  returns text[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_seconds_away constant double precision := abs(date_part('epoch', now() - tracking.parse_time(payload ->> 'sent_at')));
  v_sentence     text;
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
    when payload ->> 'sent_at' is not null and v_seconds_away is null then 'sent_at is not an ISO 8601 time.'
    when v_seconds_away > 36500 * 86400.0 then 'sent_at is more than a hundred years away.'
  end;
  if v_sentence is not null then
    return array['invalid_payload', v_sentence];
  end if;

  if payload ->> 'timestamp' is not null then
    if stated is null then
      return array['timestamp_invalid', 'timestamp is not an ISO 8601 time.'];
    elsif abs(date_part('epoch', stated - occurred_at)) > 0.001 then
      return array['timestamp_mismatch', 'timestamp and the time inside event_id differ by more than 1 ms.'];
    elsif stated < 'epoch' then
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

-- A fault as the error that PostgREST would answer with; those of old data alone have no code.
create function tracking.error_object(fault text[])
  returns jsonb
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce((
    select jsonb_build_object('code', e.code, 'message', e.message, 'details', fault[2], 'hint', e.hint)
    from   tracking.errors as e
    where  e.message = fault[1]
  ), jsonb_build_object('message', fault[1], 'details', fault[2], 'hint', fault[3]));
end $$;
comment on function tracking.error_object is 'A fault as an error: {code, message, details, hint}; without a code where it is none of tracking.errors.';
revoke execute on function tracking.error_object from public;


-- The set -------------------------------------------------------------------------------------------

-- Raises what is wrong with a batch as a whole.
create function tracking.refuse_batch(payloads jsonb)
  returns void
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(payloads) = 'array' then
    perform tracking.raise_error('payload_too_large', format('The batch has %s events.', jsonb_array_length(payloads)));
  end if;
  perform tracking.raise_error('invalid_payload', 'A batch is an array of events.');
end $$;
comment on function tracking.refuse_batch is 'Raises invalid_payload or payload_too_large.';
revoke execute on function tracking.refuse_batch from public;

-- Records a batch and answers for each event, in order:
--   {"results": [{"result": "ok" | "duplicate" | "drop", "event_id", "warnings", "error"}, …],
--    "accepted": n, "duplicates": n, "dropped": n}
-- Security definer: the caller's rights are asked once for each claim here, not once for each row. The
-- window in `judged` leaves the rows in the order of their ids, and they are written in it, so that two
-- batches with the same events cannot deadlock.
-- One plan serves all batches, so it must suit large ones: no nested loops but where nothing else goes. As
-- Postgres prices those that stay at 1e10, it would compile every call for seconds, were jit not off.
-- The service role alone may have old data recorded, by saying how its unknown ids are meant: it is judged by
-- tracking.attribute_history, its timestamps count for more than the times in its ids, and a row by a person is one
-- of version 2, whose sinks tell the person.
create function tracking.record_events(payloads jsonb, unknown_as text default null)
  returns jsonb
  language plpgsql volatile security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_nestloop = off
  set enable_mergejoin = off
  set jit = off
as $$
declare
  v_service  constant boolean := tracking.is_service();
  v_history  constant boolean := v_service and unknown_as is not null;
  v_now      constant timestamptz := date_trunc('milliseconds', clock_timestamp());
  v_first_id constant text := tracking.new_event_id(v_now); -- ids made now differ by their place in the batch
  v_typed    constant boolean := exists (select from tracking.event_types as t where t.mode <> 'off');
  v_actor    uuid;
  v_api_key  uuid;
  v_answer   jsonb;
  v_limit    integer;
begin
  if unknown_as not in ('actor', 'org', 'skip') then
    raise invalid_parameter_value using
      message = 'invalid_unknown_as',
      detail = format('%L is not actor, org or skip.', left(unknown_as, 20)),
      hint = 'Say how ids are meant that are neither a person''s nor an organization''s.';
  end if;
  if not v_service then
    v_actor := tracking.actor();
    v_api_key := tracking.api_key();
    if v_actor is null then
      perform tracking.refuse_nobody();
    end if;
  end if;
  if jsonb_typeof(payloads) is distinct from 'array' or jsonb_array_length(payloads) > 1000 then
    perform tracking.refuse_batch(payloads);
  end if;

  with sent as materialized (
    select t.n, t.payload, t.occurred_at, t.tag_faults,
           coalesce(t.payload ->> 'tracking_version', '1') as version,
           coalesce(t.payload ->> 'org_id', '') as org_id,
           coalesce(t.payload ->> 'user_id', '') as user_id,
           coalesce(nullif(t.tags ->> 'app_id', ''), t.tags ->> 'app-id', '') as app_id,
           case when v_history then coalesce(t.payload ->> 'actor_id', '') else '' end as named_actor,
           case
             when t.v7 is not null then t.v7
             when t.occurred_at = v_now and t.payload ->> 'event_id' is null
               then overlay(v_first_id placing lpad(to_hex(t.n), 3, '0') from 16)::uuid
             when t.occurred_at < 'epoch' then null
             when t.payload ->> 'event_id' is null then tracking.new_event_id(t.occurred_at, t.n::integer)
             else tracking.derived_event_id(t.payload ->> 'event_id', t.occurred_at)
           end as event_id,
           case
             when jsonb_typeof(t.payload) <> 'object' then array['invalid_payload', 'An event is a JSON object.']
             when btrim(coalesce(t.payload ->> 'event', ''), E' \t\n\r\f\x0b') = '' then array['missing_event', 'The event has no name.']
             when jsonb_typeof(t.payload -> 'event') <> 'string' then array['invalid_payload', 'event is not a string.']
             when length(t.payload ->> 'event') > 200 then array['invalid_payload', 'event is longer than 200 characters.']
             when jsonb_typeof(t.payload -> 'channel') not in ('string', 'null') then array['invalid_payload', 'channel is not a string.']
             when btrim(t.payload ->> 'channel', E' \t\n\r\f\x0b') = '' then array['invalid_payload', 'channel is blank.']
             when length(t.payload ->> 'channel') > 100 then array['invalid_payload', 'channel is longer than 100 characters.']
             when t.payload ->> 'tracking_version' not in ('1', '2')
               then array['unsupported_tracking_version', format('%L is not a tracking version.', left(t.payload ->> 'tracking_version', 20))]
             when jsonb_typeof(t.payload -> 'org_id') not in ('string', 'null') then array['invalid_payload', 'org_id is not a string.']
             when jsonb_typeof(t.payload -> 'tags') not in ('object', 'null') then array['invalid_payload', 'tags is not an object.']
             when jsonb_typeof(t.payload -> 'nonPersonTags') not in ('object', 'null') then array['invalid_payload', 'nonPersonTags is not an object.']
             when octet_length(concat(t.tags - 'org_id', t.context)) > 32768 then array['payload_too_large', 'tags and nonPersonTags take more than 32 KB.']
             when t.occurred_at > now() + interval '24 hours' then array['timestamp_in_future', 'The event is more than 24 hours ahead of the server.']
             when t.tag_faults[1] = 'enforce' then array['invalid_tags', t.tag_faults[2]]
             when t.payload ?| '{description,icon,parser,notify,notifyConsole,timestamp,event_id,sent_at}' then tracking.fault_in_rare_fields(t.payload, t.stated, t.occurred_at, t.v7 is not null)
           end as fault
    from   (
      select v.n, v.payload, v.v7, v.stated,
             case when jsonb_typeof(v.payload -> 'tags') = 'object' then v.payload -> 'tags' else '{}' end as tags,
             case when jsonb_typeof(v.payload -> 'nonPersonTags') = 'object' then v.payload -> 'nonPersonTags' else '{}' end as context,
             coalesce(tracking.event_time(v.v7), date_trunc('milliseconds', v.stated), v_now) as occurred_at,
             case when v_typed then tracking.faults_in_tags(v.payload ->> 'event',
               case when jsonb_typeof(v.payload -> 'tags') = 'object' then v.payload -> 'tags' else '{}' end) end as tag_faults
      from   (
        select s.n, s.payload, s.stated,
               case
                 when substr(s.payload ->> 'event_id', 15, 1) is distinct from '7' then null -- most ids of others: not worth a call
                 when v_history then tracking.uuid_v7_at(s.payload ->> 'event_id', s.stated)
                 else tracking.uuid_v7_in(s.payload ->> 'event_id')
               end as v7
        from   (
          select e.n, e.payload, tracking.parse_time(e.payload ->> 'timestamp') as stated
          from   jsonb_array_elements(payloads) with ordinality as e (payload, n)
          offset 0
        ) as s
        offset 0
      ) as v
      offset 0
    ) as t
  ),
  claims as materialized (
    select c.*, a.*, jsonb_strip_nulls(jsonb_build_object('org_id', a.group_id)) as org_tag
    from   (select distinct s.version, s.org_id, s.user_id, s.app_id, s.named_actor from sent as s where s.fault is null) as c
    cross  join lateral (
             select t.*
             from   tracking.attribute(
                      c.version, nullif(c.org_id, ''), nullif(c.user_id, ''), nullif(c.app_id, ''), v_actor, v_service) as t
             where  not v_history
             union  all
             select h.*
             from   tracking.attribute_history(
                      nullif(c.user_id, ''), nullif(c.named_actor, ''), nullif(c.org_id, ''), nullif(c.app_id, ''), unknown_as) as h
             where  v_history
           ) as a (actor_id, group_id, group_app, claim_fault, warnings)
  ),
  judged as materialized (
    select s.n, s.payload, s.version, s.occurred_at, s.event_id, s.tag_faults[2:] as tag_warnings,
           c.actor_id, c.group_id as org_id, c.group_app as app_id, c.warnings, c.org_tag,
           coalesce(c.group_id, c.actor_id) as scope_id,
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
    left   join claims as c using (version, org_id, user_id, app_id, named_actor)
    cross  join lateral (select coalesce(s.payload -> 'notifyConsole' = 'true', false)) as console (asked)
  ),
  written as (
    insert into public.events (
      scope_id, occurred_at, event_id, org_id, actor_id, app_id, api_key_id, event, channel,
      description, icon, parser, notify, tags, context, tracking_version, source, clock_skew)
    select j.scope_id, j.occurred_at, j.event_id, j.org_id, j.actor_id, j.app_id, v_api_key,
           j.payload ->> 'event', coalesce(j.payload ->> 'channel', 'default'),
           j.payload ->> 'description', j.payload ->> 'icon', j.payload ->> 'parser',
           coalesce((j.payload ->> 'notify')::boolean, false),
           coalesce(nullif(j.payload -> 'tags', 'null'), '{}') - 'org_id' || j.org_tag,
           coalesce(nullif(j.payload -> 'nonPersonTags', 'null'), '{}'),
           case when v_history and j.actor_id is not null then 2 else j.version::smallint end,
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
             || j.tag_warnings
             || tracking.warnings_for(nullif(j.payload - '{event,channel,description,icon,parser,notify,tags,nonPersonTags,org_id,user_id,tracking_version,timestamp,event_id,sent_at,notifyConsole}'::text[] - case when v_history then 'actor_id' else '' end, '{}'))
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
           'dropped', count(*) filter (where a.result = 'drop')),
         (select s.events_per_minute from tracking.settings as s)
  into   v_answer, v_limit
  from   answers as a;

  if v_api_key is not null then
    perform tracking.touch_api_key(v_api_key);
  end if;
  if v_limit is not null and v_actor is not null then
    perform tracking.limit_rate(v_actor, jsonb_array_length(payloads), v_limit);
  end if;
  return v_answer;
end $$;
comment on function tracking.record_events is
  'Behind track_event, track_events and actorscope import: records what is sound, and says of each event what became of it. unknown_as (actor, org or skip) says that the events are old data, and how ids are meant that nobody knows.';
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
begin
  if v_result ? 'error' then
    raise exception using
      errcode = v_result #>> '{error,code}',
      message = v_result #>> '{error,message}',
      detail = v_result #>> '{error,details}',
      hint = v_result #>> '{error,hint}';
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
