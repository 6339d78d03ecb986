-- migrate:up

-- Chapter 1: tracking.
--
-- Actorscope records who did something (the actor) and for whom (the organization), and the database
-- works out both. The chapters tell it in order: this one lays the ground; identity (2) says who is
-- calling, permissions (3) what they may, events (4) is the log, track_event (5) the way in, builds (6)
-- speak for themselves, delivery (7) takes the log elsewhere and reactions (7.1) mail about it,
-- analytics (8) is what people read and the questions (8.1) they ask, retention (9) keeps the log's partitions,
-- and erasure (9.1) forgets a person.
--
--   public     what clients may touch: tables under row-level security, and the RPCs
--   analytics  what analysts ask: views and functions, under the rights of who asks
--   app, org   the permissions, named as they read: app.read('com.acme.app')
--   tracking   the machinery, and the log's partitions; the Data API does not show it
--
-- Every function pins search_path to pg_catalog, pg_temp. With an empty one the session's temporary schema
-- would still be searched first for types, and a caller's own pg_temp.text would run with our rights.

create schema if not exists tracking;
create schema if not exists app;
create schema if not exists org;
comment on schema tracking is 'Actorscope''s machinery: not exposed to the Data API.';
comment on schema app is 'What the caller may do with an app.';
comment on schema org is 'What the caller may do in an organization.';
grant usage on schema tracking, app, org to anon, authenticated, service_role;


-- Settings ------------------------------------------------------------------------------------------

create table tracking.settings (
  only_row          boolean primary key default true,
  api_logins        name[]  not null default '{authenticator,supabase_admin}',
  events_per_minute integer,
  constraint settings_have_one_row check (only_row),
  constraint events_per_minute_is_positive check (events_per_minute > 0)
);
comment on table tracking.settings is 'What a project may choose: one row, changed by update.';
comment on column tracking.settings.only_row is 'True: keeps the table at one row.';
comment on column tracking.settings.api_logins is
  'Database logins whose request.jwt.claims and request.headers are believed: the Data API''s (authenticator, which always is), Realtime''s (supabase_admin), and those of backends that verify tokens themselves.';
comment on column tracking.settings.events_per_minute is
  'How many events an actor may send in a minute through the RPCs; null: as many as they like.';
alter table tracking.settings enable row level security;
insert into tracking.settings default values;


-- Errors --------------------------------------------------------------------------------------------

create table tracking.errors (
  message text primary key,
  code    text not null,
  hint    text not null,
  constraint code_is_an_http_status check (code ~ '^PT4\d\d$')
);
comment on table tracking.errors is 'Every error a client can be answered with: the stable message to branch on.';
comment on column tracking.errors.message is 'The stable name of the error; PostgREST sends it as "message".';
comment on column tracking.errors.code is 'SQLSTATE: PT and the HTTP status that PostgREST answers with.';
comment on column tracking.errors.hint is 'The way out, for whoever reads the error.';
alter table tracking.errors enable row level security;
insert into tracking.errors (message, code, hint) values
  ('invalid_payload',              'PT400', 'See the reference of track_event for the fields and their types.'),
  ('missing_event',                'PT400', 'Send the name of what happened as "event".'),
  ('missing_org_id',               'PT400', 'Send "org_id", or name an app that the caller may read in tags.app_id.'),
  ('unsupported_tracking_version', 'PT400', 'Send tracking_version 2, or leave it out for version 1.'),
  ('invalid_tags',                 'PT400', 'Send the tags that the kind of event has; tracking.event_types holds them.'),
  ('timestamp_invalid',            'PT400', 'Send ISO 8601 with an offset, such as 2026-11-05T09:30:00.123Z.'),
  ('timestamp_required',           'PT400', 'Send "timestamp" with an event_id that is not a UUIDv7, or make the id a UUIDv7, which carries its time.'),
  ('timestamp_mismatch',           'PT400', 'Leave "timestamp" out: a UUIDv7 carries its own time.'),
  ('timestamp_in_future',          'PT400', 'Check the clock of the device; at most 24 hours ahead are accepted.'),
  ('timestamp_out_of_range',       'PT400', 'Times from 1970 on are accepted.'),
  ('unauthenticated',              'PT401', 'Sign in, or send an API key in the header x-api-key.'),
  ('invalid_api_key',              'PT401', 'The key is unknown, revoked or expired: create another with create_api_key.'),
  ('no_permission',                'PT403', 'Ask an admin of the organization for a role, or leave the organization out.'),
  ('Forbidden',                    'PT403', 'Broadcasts go to the consoles of organizations that the caller may read.'),
  ('payload_too_large',            'PT413', 'Send less: tags and nonPersonTags together take up to 32 KB, a batch up to 1,000 events.'),
  ('rate_limited',                 'PT429', 'Wait for the next minute, or send in batches less often.');

-- Raises one of tracking.errors, with a sentence of its own as the detail.
create function tracking.raise_error(message text, detail text, hint text default null)
  returns void
  language plpgsql stable security definer -- clients may not read tracking.errors
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_error tracking.errors;
begin
  select e.* into strict v_error from tracking.errors as e where e.message = raise_error.message;
  raise exception using
    errcode = v_error.code,
    message = v_error.message,
    detail = raise_error.detail,
    hint = coalesce(raise_error.hint, v_error.hint);
end $$;
comment on function tracking.raise_error is 'Raises the error of that name with its SQLSTATE and hint.';
revoke execute on function tracking.raise_error from public;
grant execute on function tracking.raise_error to anon, authenticated, service_role;


-- Guards --------------------------------------------------------------------------------------------

-- Policies know nothing of truncate, which a "grant all" hands out too.
create function tracking.refuse_truncate()
  returns trigger
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if row_security_active(TG_RELID) then
    raise insufficient_privilege using
      message = format('permission denied to truncate %s', TG_TABLE_NAME),
      hint = 'Only the owner of the table may.';
  end if;
  return null;
end $$;
comment on function tracking.refuse_truncate is 'Keeps a table from being emptied by a role that its policies bind.';
revoke execute on function tracking.refuse_truncate from public;


-- Ids and time --------------------------------------------------------------------------------------
-- An event's id is a UUIDv7 (RFC 9562): 48 bits of milliseconds since 1970, the version, 12 bits that
-- keep events of one millisecond in order, the variant, and 62 bits that make it unique.

-- Makes a new id at a time. `step` orders what happened within one millisecond, from 0 to 4095.
create function tracking.new_event_id(at timestamptz, step integer default 0)
  returns uuid
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(step), 3, '0')
      || substr(replace(gen_random_uuid()::text, '-', ''), 17);
end $$;
comment on function tracking.new_event_id is 'A new UUIDv7 that carries the time, to the millisecond.';
revoke execute on function tracking.new_event_id from public;

-- Derives the id of an event that came with an id of another kind: the same id and time always give the
-- same UUIDv7, so that sending again is the same row.
create function tracking.derived_event_id(id text, at timestamptz)
  returns uuid
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_uuid constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
  v_hash text := encode(sha256(convert_to(case when id <> lower(id) and id ~* v_is_uuid then lower(id) else id end, 'UTF8')), 'hex');
begin
  return lpad(to_hex(floor(extract(epoch from at) * 1000)::bigint), 12, '0')
      || '7' || substr(v_hash, 1, 3)
      || 'b' || substr(v_hash, 4, 15);
end $$;
comment on function tracking.derived_event_id is 'The UUIDv7 that stands for a foreign id at a time: always the same one.';
revoke execute on function tracking.derived_event_id from public;

-- Says whether a text is a UUID as everybody writes it. (A pattern would take ten times as long.)
create function tracking.is_uuid(input text)
  returns boolean
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return input like '________-____-____-____-____________'
    and length(replace(input, '-', '')) = 32
    and translate(lower(input), '0123456789abcdef-', '') = '';
end $$;
comment on function tracking.is_uuid is 'True where the text is a UUID of 36 characters.';
revoke execute on function tracking.is_uuid from public;

-- Reads a UUIDv7, or says null. (The pattern is asked last: it takes longer than all the rest.)
create function tracking.uuid_v7_in(input text)
  returns uuid
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when substr(input, 15, 1) = '7' and length(input) = 36
     and input ~* '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' then input
  end;
end $$;
comment on function tracking.uuid_v7_in is 'The UUIDv7 in a text, or null where the text is none.';
revoke execute on function tracking.uuid_v7_in from public;

-- The time that a UUIDv7 carries.
create function tracking.event_time(event_id uuid)
  returns timestamptz
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when substr(event_id::text, 15, 1) = '7' and substr(event_id::text, 20, 1) in ('8', '9', 'a', 'b')
    then to_timestamp(('x' || translate(left(event_id::text, 13), '-', ''))::bit(48)::bigint / 1000::double precision)
  end;
end $$;
comment on function tracking.event_time is 'The time inside a UUIDv7, to the millisecond; null for a UUID of another kind.';
revoke execute on function tracking.event_time from public;
grant execute on function tracking.event_time to anon, authenticated, service_role;

-- Reads an ISO 8601 time, or says null: never an error, never a word such as "yesterday", and never a
-- meaning that depends on the session's settings. (pg_input_is_valid would do, from Postgres 16 on.) As programs write
-- it, it is known by a pattern that captures nothing: that takes a tenth of the time.
create function tracking.parse_time(input text)
  returns timestamptz
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_parts      text[];
  v_month_days integer;
begin
  if input ~ '^[1-9]\d{3}-(?:(?:0[1-9]|1[0-2])-(?:[01][1-9]|[12]0|2[1-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)'
             '[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:0\d|1[0-4]):?[0-5]\d)$' then
    return input::timestamptz;
  end if;
  v_parts := regexp_match(input,
    '^(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?:[T ]([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,9}))?)?)?'
    '(Z|z|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?)?$');
  if v_parts is null or v_parts[1] = '0000' then
    return null;
  end if;
  v_month_days := date_part('day', make_date(v_parts[1]::integer, v_parts[2]::integer, 1) + interval '1 month - 1 day');
  if v_parts[3]::integer > v_month_days then
    return null;
  end if;
  return format('%s-%s-%sT%s:%s:%s.%s%s', v_parts[1], v_parts[2], v_parts[3],
    coalesce(v_parts[4], '00'), coalesce(v_parts[5], '00'), coalesce(v_parts[6], '00'),
    rpad(left(coalesce(v_parts[7], '0'), 6), 6, '0'), replace(upper(coalesce(v_parts[8], 'Z')), 'Z', '+00'))::timestamptz;
end $$;
comment on function tracking.parse_time is 'An ISO 8601 time (UTC where it has no offset), or null where the text is none.';
revoke execute on function tracking.parse_time from public;

-- Reads a UUIDv7 of old data, where the time that it carries is the one that is stated, or none is; else says null:
-- it was made when the event arrived somewhere, and is an id of another kind.
create function tracking.uuid_v7_at(input text, stated timestamptz)
  returns uuid
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_id uuid := tracking.uuid_v7_in(input);
begin
  return case
    when v_id is null or abs(date_part('epoch', tracking.event_time(v_id) - stated)) > 0.001 then null
    else v_id
  end;
end $$;
comment on function tracking.uuid_v7_at is 'The UUIDv7 in a text, or null where the text is none or states another time.';
revoke execute on function tracking.uuid_v7_at from public;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
