-- migrate:up

-- Chapter 6: builds.
--
-- People ask for builds, a builder (the service role) reports on them, and each change of status that
-- matters becomes an event, written by a trigger in the same transaction: attributed to who asked,
-- grouped by the org that owns the app.
--
--   lifecycle   requested ──────► started ──────► finished      and no way back
--   events      Build Requested   Build Started   Build Succeeded, Failed, Timed Out, Cancelled, …
--
-- The row remembers in `lifecycle` which events have been written. Two updates of one build wait for each
-- other at the row, so a step is never taken twice, however the builder's reports repeat, overtake one
-- another or contradict themselves; a build that never ran has no Build Started.

create table public.build_requests (
  id              uuid        not null default gen_random_uuid(),
  owner_org       uuid        not null,
  app_id          text        not null,
  requested_by    uuid        not null,
  platform        text        not null,
  build_mode      text        not null default 'release',
  status          text        not null default 'pending',
  builder_job_id  text,
  last_error      text,
  timeout_seconds integer     not null default 900,
  created_at      timestamptz not null default now(),
  queued_at       timestamptz,
  started_at      timestamptz,
  completed_at    timestamptz,
  updated_at      timestamptz not null default now(),
  runner_wait_seconds integer,
  job_stopped_at  timestamptz,
  lifecycle       text        not null default 'requested',
  advanced        boolean     not null default false,
  primary key (id, owner_org),
  constraint platform_is_ios_or_android check (platform in ('ios', 'android')),
  constraint build_mode_is_not_blank check (build_mode ~ '\S'),
  constraint build_mode_is_at_most_100_characters check (length(build_mode) <= 100),
  constraint status_is_known check (
    status in ('pending', 'running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'expired', 'released')),
  constraint timeout_is_between_5_minutes_and_6_hours check (timeout_seconds between 300 and 21600),
  constraint times_are_finite check (isfinite(created_at) and isfinite(started_at) and isfinite(completed_at)),
  constraint lifecycle_is_known check (lifecycle in ('requested', 'started', 'finished'))
);
create index build_requests_owner_org_created_at on public.build_requests (owner_org, created_at);
create index build_requests_requested_by on public.build_requests (requested_by);
create index build_requests_unfinished on public.build_requests (updated_at) where lifecycle <> 'finished';
create index build_requests_to_stop on public.build_requests (completed_at)
  where status = 'timed_out' and builder_job_id is not null and job_stopped_at is null;

comment on table public.build_requests is 'Builds that were asked for, and how far they are. Each change of status that matters is an event.';
comment on column public.build_requests.owner_org is 'The organization that owns the app; set by the database.';
comment on column public.build_requests.requested_by is 'Who asked for the build: the actor of its events; set by the database, where the service role does not name somebody.';
comment on column public.build_requests.platform is 'ios or android.';
comment on column public.build_requests.build_mode is 'Such as release or debug.';
comment on column public.build_requests.status is 'pending, running, or one of the ends: succeeded, failed, timed_out, cancelled, expired, released.';
comment on column public.build_requests.builder_job_id is 'The builder''s own id of the job; null until it was handed over.';
comment on column public.build_requests.last_error is 'What the builder said last; never part of an event.';
comment on column public.build_requests.timeout_seconds is 'How long the build may run; taken from the app''s limit when it was asked for.';
comment on column public.build_requests.queued_at is 'When it was handed to a builder; null until then. Kept by a trigger.';
comment on column public.build_requests.started_at is 'When it first ran.';
comment on column public.build_requests.completed_at is 'When it ended.';
comment on column public.build_requests.runner_wait_seconds is 'How long the job waited for a machine to run on, as the builder says.';
comment on column public.build_requests.job_stopped_at is 'When the builder stopped the job of a build that timed out, or was found to have ended it.';
comment on column public.build_requests.lifecycle is 'Which lifecycle events have been written: requested, started, finished. Kept by a trigger.';
comment on column public.build_requests.advanced is 'Whether the last change took the build a step further: a note from one trigger to the next.';

create table tracking.build_limits (
  app_id          text primary key,
  timeout_seconds integer not null,
  constraint timeout_is_between_5_minutes_and_6_hours check (timeout_seconds between 300 and 21600)
);
comment on table tracking.build_limits is 'How long builds of an app may run, where that is not the default of 900 seconds.';
comment on column tracking.build_limits.timeout_seconds is 'From 300 to 21,600 seconds.';
alter table tracking.build_limits enable row level security;

create table tracking.dead_letters (
  id        uuid        primary key default gen_random_uuid(),
  event     jsonb       not null,
  error     text        not null,
  failed_at timestamptz not null default now(),
  tries     integer     not null default 1
);
comment on table tracking.dead_letters is 'Lifecycle events that could not be written, whole, until tracking.retry_dead_letters() can.';
comment on column tracking.dead_letters.event is 'The row of public.events, but for the stamps of the transaction that will write it.';
comment on column tracking.dead_letters.error is 'SQLSTATE and message of the last failure.';
comment on column tracking.dead_letters.failed_at is 'When it last failed.';
comment on column tracking.dead_letters.tries is 'How often it was tried.';
alter table tracking.dead_letters enable row level security;
grant select on tracking.dead_letters to service_role;


-- Who may ask, and who may see ----------------------------------------------------------------------

alter table public.build_requests enable row level security;
revoke all on public.build_requests from anon, authenticated, service_role;
grant select on public.build_requests to anon, authenticated;
grant insert (app_id, platform, build_mode) on public.build_requests to anon, authenticated;
grant select, insert, delete on public.build_requests to service_role;
grant update (status, builder_job_id, last_error, timeout_seconds, started_at, completed_at, updated_at, runner_wait_seconds, job_stopped_at)
  on public.build_requests to service_role;

create policy "people ask for builds of apps they may build" on public.build_requests
  for insert to anon, authenticated
  with check (
    app.build(app_id)
    and status = 'pending'
    and requested_by = (select tracking.actor())
    and (app_id, owner_org) in (select r.app_id, r.owner_org from app.readable() as r)
  );

create policy "people read the builds of apps they may read" on public.build_requests
  for select to anon, authenticated
  using (app_id = any (array(select r.app_id from app.readable() as r)));

create trigger build_requests_are_not_truncated before truncate on public.build_requests
  for each statement execute function tracking.refuse_truncate();


-- The row keeps its own books -----------------------------------------------------------------------

-- Fills in what the database knows better than the client: who asks, for whom, and for how long at most.
-- The service role asks in somebody's name.
create function tracking.fill_in_build()
  returns trigger
  language plpgsql volatile security definer -- whose app it is, and its limit, are not for every client to read
  set search_path = pg_catalog, pg_temp
as $$
begin
  if not tracking.is_service() then
    NEW.id := gen_random_uuid();
    NEW.requested_by := tracking.actor();
    NEW.builder_job_id := null;
    NEW.last_error := null;
    NEW.created_at := now();
    NEW.started_at := null;
    NEW.completed_at := null;
    NEW.runner_wait_seconds := null;
    NEW.job_stopped_at := null;
  end if;
  NEW.owner_org := app.owner_org(NEW.app_id);
  NEW.timeout_seconds := coalesce(
    (select l.timeout_seconds from tracking.build_limits as l where l.app_id = NEW.app_id), 900);
  NEW.lifecycle := 'requested';
  return NEW;
end $$;
comment on function tracking.fill_in_build is 'Sets who asks for a build, for whom, and its time limit.';
revoke execute on function tracking.fill_in_build from public;

-- Takes a build as far along its lifecycle as its status says, and never back.
create function tracking.advance_build()
  returns trigger
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_reached constant text := case when TG_OP = 'UPDATE' then OLD.lifecycle else 'requested' end;
begin
  NEW.updated_at := now();
  NEW.lifecycle := v_reached;
  NEW.advanced := false;
  NEW.queued_at := case
    when TG_OP = 'UPDATE' and OLD.queued_at is not null then OLD.queued_at
    when NEW.builder_job_id is not null then clock_timestamp()
  end;
  if v_reached in ('started', 'finished') then
    NEW.started_at := coalesce(NEW.started_at, OLD.started_at);
  end if;
  if v_reached = 'finished' then
    NEW.completed_at := coalesce(NEW.completed_at, OLD.completed_at);
  end if;
  if v_reached = 'requested' and NEW.status = 'running' then
    NEW.lifecycle := 'started';
    NEW.started_at := coalesce(NEW.started_at, clock_timestamp());
    NEW.advanced := true;
  elsif v_reached <> 'finished' and NEW.status not in ('pending', 'running') then
    NEW.lifecycle := 'finished';
    NEW.completed_at := coalesce(NEW.completed_at, clock_timestamp());
    NEW.advanced := true;
  end if;
  return NEW;
end $$;
comment on function tracking.advance_build is 'Keeps a build''s lifecycle and times in step with its status.';
revoke execute on function tracking.advance_build from public;

create trigger build_1_is_filled_in before insert on public.build_requests
  for each row execute function tracking.fill_in_build();
create trigger build_2_is_advanced before insert or update on public.build_requests
  for each row execute function tracking.advance_build();


-- Changes become events -----------------------------------------------------------------------------

create table tracking.build_steps (
  status text     primary key,
  event  text     not null,
  icon   text     not null,
  step   smallint not null
);
comment on table tracking.build_steps is 'The event that each status of a build becomes, when a build first gets that far.';
comment on column tracking.build_steps.event is 'The name of the event.';
comment on column tracking.build_steps.icon is 'Its emoji.';
comment on column tracking.build_steps.step is '0 asked for, 1 started, 2 ended; keeps events of one millisecond in order.';
alter table tracking.build_steps enable row level security;
insert into tracking.build_steps (status, event, icon, step) values
  ('pending',   'Build Requested', '🛠️', 0),
  ('running',   'Build Started',   '⏳', 1),
  ('succeeded', 'Build Succeeded', '✅', 2),
  ('failed',    'Build Failed',    '❌', 2),
  ('timed_out', 'Build Timed Out', '⏰', 2),
  ('cancelled', 'Build Cancelled', '🛑', 2),
  ('expired',   'Build Expired',   '⌛', 2),
  ('released',  'Build Released',  '♻️', 2);

-- Says why a build failed in one of four words. The raw error may hold paths and secrets, and stays out.
create function tracking.failure_category(status text, last_error text)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when status not in ('failed', 'timed_out') then null
    when status = 'timed_out' or last_error ~* 'timed? ?out' then 'timeout'
    when last_error ~* 'validation|missing credential|invalid build_mode' then 'validation_error'
    when last_error ~ '\S' then 'builder_error'
    else 'unknown'
  end;
end $$;
comment on function tracking.failure_category is 'timeout, validation_error, builder_error or unknown for a failed build; else null.';
revoke execute on function tracking.failure_category from public;

-- Whole seconds from one time to another: never negative, and no error for times of any distance.
create function tracking.seconds_between(since timestamptz, until timestamptz)
  returns double precision
  language plpgsql immutable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return round(greatest(date_part('epoch', until) - date_part('epoch', since), 0));
end $$;
comment on function tracking.seconds_between is 'Seconds from one time to another, rounded, at least 0; null where a time is.';
revoke execute on function tracking.seconds_between from public;

-- Writes events of the database's own into the log.
create function tracking.write_trigger_events(events public.events[])
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.events (
    scope_id, occurred_at, event_id, org_id, actor_id, app_id, api_key_id, event, channel, icon, tags, source)
  select e.scope_id, e.occurred_at, e.event_id, e.org_id, e.actor_id, e.app_id, null, e.event, e.channel, e.icon, e.tags, 'trigger'
  from   unnest(write_trigger_events.events) as e
  on     conflict do nothing;
end $$;
comment on function tracking.write_trigger_events is 'Writes events into the log as the database''s own; those that are there already stay as they are.';
revoke execute on function tracking.write_trigger_events from public;

-- Writes one event, or puts it into the dead letters with the error; where even that fails, the server's
-- log has it.
create function tracking.write_or_bury(event public.events)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform tracking.write_trigger_events(array[event]);
exception when others then
  begin
    insert into tracking.dead_letters (event, error) values (to_jsonb(write_or_bury.event), SQLSTATE || ' ' || SQLERRM);
  exception when others then
    raise warning 'actorscope: % % while burying %', SQLSTATE, SQLERRM, to_jsonb(event);
  end;
end $$;
comment on function tracking.write_or_bury is 'Writes an event, or keeps it as a dead letter; never raises.';
revoke execute on function tracking.write_or_bury from public;

-- Writes the events of all builds that a statement changed, in one insert; where that fails, one by one.
-- Whatever happens, the builds go on.
create function tracking.emit_build_events()
  returns trigger
  language plpgsql volatile security definer -- whoever changes a build, its events are the database's own
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_at     constant timestamptz := date_trunc('milliseconds', clock_timestamp());
  v_prefix constant text := left(tracking.new_event_id(v_at)::text, 15);
  v_events public.events[];
  v_event  public.events;
begin
  v_events := array(
    select e::public.events
    from (
      select b.owner_org as scope_id,
             v_at as occurred_at,
             (v_prefix || '00' || s.step || substr(gen_random_uuid()::text, 19))::uuid as event_id,
             b.owner_org as org_id,
             b.requested_by as actor_id,
             b.app_id,
             null::uuid as api_key_id,
             s.event,
             'build-lifecycle' as channel,
             null::text as description,
             s.icon,
             null::text as parser,
             false as notify,
             jsonb_strip_nulls(
               jsonb_build_object(
                 'app_id', b.app_id, 'org_id', b.owner_org, 'build_id', b.id, 'job_id', b.builder_job_id,
                 'platform', b.platform, 'build_mode', b.build_mode)
               || case s.step
                 when 2 then jsonb_build_object(
                   'duration_seconds', tracking.seconds_between(b.started_at, b.completed_at),
                   'queue_seconds', tracking.seconds_between(b.created_at, b.started_at),
                   'failure_category', tracking.failure_category(b.status, b.last_error))
                 else '{}'
               end) as tags,
             '{}'::jsonb as context,
             2::smallint as tracking_version,
             'trigger' as source,
             null::interval as clock_skew,
             now() as received_at,
             pg_current_xact_id() as txid,
             1::smallint as epoch
      from   changed_builds as b
      join   tracking.build_steps as s
      on     (b.advanced and s.status = b.status) or (TG_OP = 'INSERT' and s.status = 'pending')
    ) as e
  );
  if cardinality(v_events) > 0 then
    perform tracking.write_trigger_events(v_events);
  end if;
  return null;
exception when others then
  if v_events is null then
    raise warning 'actorscope: no lifecycle event was made: % %', SQLSTATE, SQLERRM;
  end if;
  foreach v_event in array coalesce(v_events, '{}') loop
    perform tracking.write_or_bury(v_event);
  end loop;
  return null;
end $$;
comment on function tracking.emit_build_events is 'Writes the lifecycle events of the builds that a statement changed; never fails the statement.';
revoke execute on function tracking.emit_build_events from public;

create trigger requested_builds_emit_events after insert on public.build_requests
  referencing new table as changed_builds
  for each statement execute function tracking.emit_build_events();
create trigger changed_builds_emit_events after update on public.build_requests
  referencing new table as changed_builds
  for each statement execute function tracking.emit_build_events();

-- Tries the dead letters again, the oldest first: together, and where that fails one by one.
create function tracking.retry_dead_letters(max_letters integer default 1000)
  returns table (written integer, failed integer)
  language plpgsql volatile security definer -- writes events as the database's own
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_letters tracking.dead_letters[];
  v_letter  tracking.dead_letters;
begin
  v_letters := array(
    select d from tracking.dead_letters as d order by d.failed_at limit max_letters for update skip locked);
  written := 0;
  failed := 0;
  foreach v_letter in array v_letters loop
    begin
      perform tracking.write_trigger_events(array[jsonb_populate_record(null::public.events, v_letter.event)]);
      delete from tracking.dead_letters as d where d.id = v_letter.id;
      written := written + 1;
    exception when others then
      update tracking.dead_letters as d
      set    error = SQLSTATE || ' ' || SQLERRM, failed_at = clock_timestamp(), tries = d.tries + 1
      where  d.id = v_letter.id;
      failed := failed + 1;
    end;
  end loop;
  return next;
end $$;
comment on function tracking.retry_dead_letters is
  'Puts dead letters into the log, each once, and answers how many it wrote and how many failed again.';
revoke execute on function tracking.retry_dead_letters from public;
grant execute on function tracking.retry_dead_letters to service_role;


-- The RPCs ------------------------------------------------------------------------------------------

create function public.request_build(app_id text, platform text, build_mode text default 'release')
  returns public.build_requests
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_build public.build_requests;
begin
  if tracking.actor() is null then
    perform tracking.refuse_nobody();
  elsif platform is null or platform not in ('ios', 'android') then
    perform tracking.raise_error('invalid_payload', 'platform is neither ios nor android.', 'Send "ios" or "android".');
  elsif coalesce(build_mode, '') !~ '\S' or length(build_mode) > 100 then
    perform tracking.raise_error('invalid_payload', 'build_mode is blank, or longer than 100 characters.', 'Send "release" or "debug".');
  elsif not coalesce(app.build(app_id), false) then
    perform tracking.raise_error('no_permission', format('The caller may not build the app %L.', left(app_id, 100)));
  end if;
  insert into public.build_requests (app_id, platform, build_mode)
  values (request_build.app_id, request_build.platform, request_build.build_mode)
  returning * into v_build;
  return v_build;
end $$;
comment on function public.request_build is
  'Asks for a build of an app that the caller may build; answers with its row. Errors: unauthenticated, invalid_api_key, invalid_payload, no_permission.';
revoke execute on function public.request_build from public, anon, authenticated, service_role;
grant execute on function public.request_build to anon, authenticated;

create function tracking.set_build_limit(app_id text, timeout_seconds integer)
  returns jsonb
  language plpgsql volatile security definer -- writes limits, which clients may not
  set search_path = pg_catalog, pg_temp
as $$
begin
  if timeout_seconds is null or timeout_seconds not between 300 and 21600 then
    perform tracking.raise_error('invalid_payload', 'timeout_seconds is not from 300 to 21600.', 'Send a whole number of seconds from 300 to 21600.');
  elsif not coalesce(app.manage(app_id), false) then
    perform tracking.raise_error('no_permission', format('The caller may not manage the app %L.', left(app_id, 100)));
  end if;
  insert into tracking.build_limits as l (app_id, timeout_seconds)
  values (set_build_limit.app_id, set_build_limit.timeout_seconds)
  on conflict on constraint build_limits_pkey do update set timeout_seconds = excluded.timeout_seconds;
  return jsonb_build_object('app_id', app_id, 'timeout_seconds', timeout_seconds);
end $$;
comment on function tracking.set_build_limit is 'Behind public.set_build_limit.';
revoke execute on function tracking.set_build_limit from public;
grant execute on function tracking.set_build_limit to anon, authenticated, service_role;

create function public.set_build_limit(app_id text, timeout_seconds integer)
  returns jsonb
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.set_build_limit(app_id, timeout_seconds);
end $$;
comment on function public.set_build_limit is
  'Sets how long builds of an app may run from now on, in seconds from 300 to 21,600; the caller must manage the app. Answers {app_id, timeout_seconds}. Errors: invalid_payload, no_permission.';
revoke execute on function public.set_build_limit from public, anon, authenticated, service_role;
grant execute on function public.set_build_limit to anon, authenticated, service_role;


-- Reconciliation ------------------------------------------------------------------------------------

-- Ends the builds that nobody will: those past their limit, as timed_out and as if they had been stopped in
-- time, and those that no builder took within an hour, as expired. Builds that somebody is changing at this
-- moment are left for the next run.
create function tracking.reconcile_builds()
  returns table (timed_out bigint, expired bigint)
  language plpgsql volatile security definer -- the service role may run it, and pg_cron
  set search_path = pg_catalog, pg_temp
as $$
begin
  with late as (
    select b.id
    from   public.build_requests as b
    where  b.lifecycle = 'started'
    and    b.started_at <= now() - make_interval(secs => b.timeout_seconds)
    order  by b.id
    for    no key update skip locked
  )
  update public.build_requests as b
  set    status = 'timed_out',
         completed_at = b.started_at + make_interval(secs => b.timeout_seconds),
         last_error = format('The build ran longer than %s seconds.', b.timeout_seconds)
  from   late
  where  b.id = late.id;
  get diagnostics timed_out = row_count;

  with unclaimed as (
    select b.id
    from   public.build_requests as b
    where  b.lifecycle = 'requested'
    and    b.builder_job_id is null
    and    b.created_at <= now() - interval '1 hour'
    order  by b.id
    for    no key update skip locked
  )
  update public.build_requests as b
  set    status = 'expired',
         last_error = 'The build was not handed to a builder within an hour.'
  from   unclaimed
  where  b.id = unclaimed.id;
  get diagnostics expired = row_count;
  return next;
end $$;
comment on function tracking.reconcile_builds is
  'Ends builds past their time limit (timed_out) and those no builder took within an hour (expired). Answers how many of each.';
revoke execute on function tracking.reconcile_builds from public;
grant execute on function tracking.reconcile_builds to service_role;

do $$
begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    perform cron.schedule('actorscope-reconcile-builds', '* * * * *', 'select tracking.reconcile_builds()');
  end if;
end $$;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
