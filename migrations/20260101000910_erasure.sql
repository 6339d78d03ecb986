-- migrate:up

-- Chapter 9.1: erasure.
--
-- A person's right to be forgotten, and to be told what is known of them; and the same for an organization. Where
-- events are append-only, this is the one who takes some out:
--
--   erase_actor, erase_org   ask for it, and do a bite of it at once
--   continue_erasure         does the next bite, until nothing is left: each is a transaction of its own
--   settle_notice            says that a sink has been told, or cannot be
--   export_actor             all that is held about a person
--
-- What was asked for is a row of tracking.erasures, so whatever is interrupted is taken up where it stopped: by
-- whoever asks again, or by a worker. A bite ends at a full hour, so that the rollup loses the same hours; and it does
-- not touch events of a batch that some worker is sending at the moment, whose books would not balance: it says whom
-- it waits for.


-- Asked for, and done -------------------------------------------------------------------------------

create table tracking.erasures (
  id           uuid        primary key default gen_random_uuid(),
  subject      text        not null,
  subject_id   uuid,
  subject_hash bytea       not null,
  email        text,
  asked_by     text        not null,
  asked_at     timestamptz not null default clock_timestamp(),
  events       bigint      not null default 0,
  builds       bigint      not null default 0,
  letters      bigint      not null default 0,
  erased_at    timestamptz,
  done_at      timestamptz,
  constraint subject_is_actor_or_org check (subject in ('actor', 'org')),
  constraint nobody_is_named_longer_than_it_takes check (
    case when done_at is null then subject_id is not null else num_nonnulls(subject_id, email) = 0 end)
);
create unique index erasures_under_way on tracking.erasures (subject, subject_id) where erased_at is null;
create index erasures_subject_hash on tracking.erasures (subject_hash);
comment on table tracking.erasures is
  'Who was erased, when, and who asked for it. The id is kept for as long as it is needed, and then its hash alone: '
  'whoever has an id can find out whether it was erased, also in a backup, and nobody can read here who was.';
comment on column tracking.erasures.subject is 'actor or org.';
comment on column tracking.erasures.subject_id is 'Whom; null when all is done.';
comment on column tracking.erasures.subject_hash is 'SHA-256 of the id as text.';
comment on column tracking.erasures.email is 'The person''s address, for sinks that know people by it; null when all is done.';
comment on column tracking.erasures.asked_by is 'The login that asked, and the role that it took.';
comment on column tracking.erasures.events is 'Events that were erased so far, those that could not be written included.';
comment on column tracking.erasures.builds is 'Builds that were erased, or whose person was.';
comment on column tracking.erasures.letters is 'Events that a sink had refused, and that were kept for it.';
comment on column tracking.erasures.erased_at is 'When the database had nothing left.';
comment on column tracking.erasures.done_at is 'When every sink had been told, or could not be.';

create table tracking.erasure_notices (
  erasure  uuid        not null references tracking.erasures (id) on delete cascade,
  name     text        not null,
  sink     text        references tracking.sinks (name) on update cascade on delete set null,
  outcome  text        not null default 'waiting',
  detail   text,
  tries    integer     not null default 0,
  retry_at timestamptz,
  ended_at timestamptz,
  primary key (erasure, name),
  constraint outcome_is_known check (outcome in ('waiting', 'told', 'impossible')),
  constraint what_waits_is_tried_again check ((outcome = 'waiting') = (retry_at is not null and ended_at is null))
);
create index erasure_notices_waiting on tracking.erasure_notices (retry_at) where outcome = 'waiting';
create index erasure_notices_sink on tracking.erasure_notices (sink);
comment on table tracking.erasure_notices is 'What became of telling each sink of an erasure.';
comment on column tracking.erasure_notices.name is 'The sink''s name when somebody was erased.';
comment on column tracking.erasure_notices.sink is 'The sink; null: it is no more.';
comment on column tracking.erasure_notices.outcome is 'waiting, told, or impossible: it cannot be told.';
comment on column tracking.erasure_notices.detail is 'What the sink answered, what went wrong last, or why it is impossible.';
comment on column tracking.erasure_notices.tries is 'How often it went wrong.';
comment on column tracking.erasure_notices.retry_at is 'Not to be told before then.';
comment on column tracking.erasure_notices.ended_at is 'When it was told, or was found to be impossible.';
alter table tracking.erasures enable row level security;
alter table tracking.erasure_notices enable row level security;
grant select on tracking.erasures, tracking.erasure_notices to service_role;

-- Old data, exported before somebody was erased, must not bring them back: imports ask this.
create function tracking.was_erased(ids text[])
  returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from   tracking.erasures as e
    where  e.subject_hash = any (array(select sha256(convert_to(lower(i.id), 'UTF8')) from unnest(ids) as i (id))));
end $$;
comment on function tracking.was_erased is 'True where one of these ids is a person''s or an organization''s who was erased.';
revoke execute on function tracking.was_erased from public;


-- The seam ------------------------------------------------------------------------------------------
-- What the chapters on identity and permissions hold of people and organizations. Replace these functions to erase them
-- from your own tables, or to leave those alone. They come first, so that nobody acts as the person, or for the
-- organization, any more; and again with each bite.

-- Of an org, those that are for nothing else.
create function tracking.keys_of(subject text, whose uuid)
  returns uuid[]
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if subject = 'actor' then
    return array(select k.id from public.api_keys as k where k.owner_id = whose);
  end if;
  return array(
    select k.id
    from   tracking.role_bindings as b
    left   join public.apps as a on a.app_id = b.app_id
    join   public.api_keys as k on k.id = b.principal_id
    group  by k.id
    having bool_and(coalesce(b.org_id, a.owner_org) = whose));
end $$;
comment on function tracking.keys_of is 'The API keys that go with an actor or an org.';

create function tracking.forget_actor(actor uuid)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys constant uuid[] := tracking.keys_of('actor', actor);
begin
  delete from tracking.role_bindings as b where b.principal_id = any (v_keys || actor);
  delete from public.api_keys as k where k.id = any (v_keys);
end $$;
comment on function tracking.forget_actor is 'Erases a person''s API keys and roles.';

create function tracking.forget_org(org uuid)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys constant uuid[] := tracking.keys_of('org', org);
begin
  delete from tracking.build_limits as l using public.apps as a where a.app_id = l.app_id and a.owner_org = org;
  delete from public.orgs as o where o.id = org; -- with its apps, and the roles in it
  delete from public.api_keys as k where k.id = any (v_keys);
end $$;
comment on function tracking.forget_org is
  'Erases an organization with its apps, the roles in it, and the API keys that were for it alone.';
revoke execute on function tracking.keys_of, tracking.forget_actor, tracking.forget_org from public;


-- Erasing -------------------------------------------------------------------------------------------

-- Erases a person: asks for it, and does the first bite, of about so many events. What is left is for
-- tracking.continue_erasure, or a worker. What they do later is recorded like anybody's.
create function tracking.erase_actor(actor uuid, max_events integer default 5000)
  returns table (erasure uuid, events bigint, done boolean, waits_for text[])
  language plpgsql volatile security definer -- the service role may run it, and erases nothing by hand
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '5s'
as $$
begin
  return query select e.* from tracking.erase('actor', actor, max_events) as e;
end $$;
comment on function tracking.erase_actor is
  'Erases a person, a bite at a time: answers the erasure, how many events are gone so far, whether nothing is left, and '
  'which sinks are being sent some and are waited for. tracking.continue_erasure goes on. Errors: 22004, 22023, '
  'log_restored.';

-- Erases an organization: its events, builds and apps, and itself. People who acted for it stay.
create function tracking.erase_org(org uuid, max_events integer default 5000)
  returns table (erasure uuid, events bigint, done boolean, waits_for text[])
  language plpgsql volatile security definer -- the service role may run it, and erases nothing by hand
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '5s'
as $$
begin
  return query select e.* from tracking.erase('org', org, max_events) as e;
end $$;
comment on function tracking.erase_org is
  'Erases an organization, a bite at a time, as tracking.erase_actor does with a person.';
revoke execute on function tracking.erase_actor, tracking.erase_org from public;
grant execute on function tracking.erase_actor, tracking.erase_org to service_role;

-- Where somebody is in the way of the first bite, it has been asked for all the same.
create function tracking.erase(subject text, whose uuid, max_events integer)
  returns table (erasure uuid, events bigint, done boolean, waits_for text[])
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_erasure uuid;
begin
  if whose is null then
    raise null_value_not_allowed using message = format('Name the %s that is to be erased.', subject);
  elsif whose in (tracking.everybody(), tracking.all_orgs()) then
    raise invalid_parameter_value using
      message = format('%s is the id of nobody.', whose),
      detail = 'The nil UUID stands for whoever was erased, in builds that they had asked for; the rollup has both for everybody.';
  end if;
  perform tracking.refuse_restored_log();
  insert into tracking.erasures (subject, subject_id, subject_hash, email, asked_by)
  values (
    erase.subject, erase.whose, sha256(convert_to(erase.whose::text, 'UTF8')),
    case when erase.subject = 'actor' then tracking.email(erase.whose) end,
    concat_ws(' as ', session_user, nullif(nullif(current_setting('role'), 'none'), session_user::text)))
  on     conflict do nothing;
  select e.id into strict v_erasure
  from   tracking.erasures as e
  where  e.subject = erase.subject
  and    e.subject_id = erase.whose
  and    e.erased_at is null;
  begin
    return query select c.* from tracking.continue_erasure(v_erasure, max_events) as c;
  exception when lock_not_available then
    return query select v_erasure, 0::bigint, false, null::text[];
  end;
end $$;
comment on function tracking.erase is 'Behind tracking.erase_actor and tracking.erase_org.';
revoke execute on function tracking.erase from public;

-- The order is that of how one becomes another: builds bring forth events, and dead letters that become events; and
-- workers keep events that their sink refused. So what is found empty stays empty.
create function tracking.continue_erasure(id uuid, max_events integer default 5000)
  returns table (erasure uuid, events bigint, done boolean, waits_for text[])
  language plpgsql volatile security definer -- the service role may run it, and erases nothing by hand
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '5s'
as $$
declare
  v_erasure tracking.erasures;
  v_builds  bigint;
  v_dead    bigint;
  v_events  record;
  v_letters bigint := 0;
begin
  if max_events is null or max_events < 1 then
    raise invalid_parameter_value using message = 'A bite is one event or more.';
  end if;
  perform tracking.refuse_restored_log();
  lock table tracking.expired in share row exclusive mode; -- no sink is made or rewound meanwhile, and no month copied
  select e.* into v_erasure from tracking.erasures as e where e.id = continue_erasure.id for update;
  if not found then
    raise undefined_object using message = format('There is no erasure %L.', continue_erasure.id);
  elsif v_erasure.erased_at is not null then
    return query select v_erasure.id, v_erasure.events, true, null::text[];
    return;
  end if;

  perform tracking.lock_rollup();
  perform tracking.forget_subject(v_erasure.subject, v_erasure.subject_id);
  v_builds := tracking.erase_builds(v_erasure.subject, v_erasure.subject_id, max_events);
  v_dead := tracking.erase_dead_letters(v_erasure.subject, v_erasure.subject_id);
  v_events := tracking.erase_events(v_erasure.subject, v_erasure.subject_id, max_events);
  if not v_events.more then
    v_letters := tracking.erase_undelivered(v_erasure.subject, v_erasure.subject_id, max_events);
  end if;
  update tracking.erasures as e
  set    builds = e.builds + v_builds,
         events = e.events + v_dead + v_events.events,
         letters = e.letters + v_letters
  where  e.id = v_erasure.id
  returning e.* into v_erasure;
  done := not v_events.more and v_builds < max_events and v_letters < max_events;
  if done then
    perform tracking.end_erasure(v_erasure.id);
  end if;
  return query select v_erasure.id, v_erasure.events, done, v_events.waits_for;
end $$;
comment on function tracking.continue_erasure is
  'Does the next bite of an erasure, of about so many events: answers as tracking.erase_actor does. Errors: 42704 for an '
  'unknown erasure, 55P03 where somebody is in the way, log_restored.';
revoke execute on function tracking.continue_erasure from public;
grant execute on function tracking.continue_erasure to service_role;

-- Goes on with what is under way, the oldest first, until about so many events are gone: for a schedule.
create function tracking.continue_erasures(max_events integer default 5000)
  returns bigint
  language plpgsql volatile security definer -- the service role may run it, and erases nothing by hand
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_erasure record;
  v_reached record;
  v_events  bigint := 0;
begin
  for v_erasure in
    select e.id, e.events from tracking.erasures as e where e.erased_at is null order by e.asked_at
  loop
    select * into v_reached from tracking.continue_erasure(v_erasure.id, (max_events - v_events)::integer);
    v_events := v_events + v_reached.events - v_erasure.events;
    exit when v_events >= max_events;
  end loop;
  return v_events;
end $$;
comment on function tracking.continue_erasures is
  'Goes on with the erasures that are under way, by about so many events; answers how many. Errors: 55P03 where somebody '
  'is in the way, log_restored.';
revoke execute on function tracking.continue_erasures from public;
grant execute on function tracking.continue_erasures to service_role;

-- What is neither an event nor a build, and little.
create function tracking.forget_subject(subject text, whose uuid)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if subject = 'actor' then
    perform tracking.forget_actor(whose);
    delete from tracking.rate_windows as w where w.actor_id = whose;
    delete from tracking.mail_optouts as o where o.actor_id = whose;
    update tracking.mail_claims as c set due = array_remove(c.due, whose) where whose = any (c.due);
  else
    perform tracking.forget_org(whose);
    delete from tracking.announced_orgs as o where o.org_id = whose;
    delete from tracking.mail_claims as c where c.scope_id = whose;
  end if;
end $$;
comment on function tracking.forget_subject is 'Erases what is held of somebody besides events and builds.';
revoke execute on function tracking.forget_subject from public;

-- A build is a record of the organization's: it stays, and nobody asked for it.
create function tracking.erase_builds(subject text, whose uuid, max_builds integer)
  returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_builds bigint;
begin
  if subject = 'actor' then
    update public.build_requests as b
    set    requested_by = '00000000-0000-0000-0000-000000000000'
    where  (b.id, b.owner_org) in (
      select o.id, o.owner_org from public.build_requests as o where o.requested_by = whose limit max_builds);
  else
    delete from public.build_requests as b
    where  (b.id, b.owner_org) in (
      select o.id, o.owner_org from public.build_requests as o where o.owner_org = whose limit max_builds);
  end if;
  get diagnostics v_builds = row_count;
  return v_builds;
end $$;
comment on function tracking.erase_builds is
  'Erases an organization''s builds, or the person who asked for them; answers how many.';
revoke execute on function tracking.erase_builds from public;

create function tracking.erase_dead_letters(subject text, whose uuid)
  returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_letters bigint;
begin
  delete from tracking.dead_letters as d where d.event ->> (subject || '_id') = whose::text;
  get diagnostics v_letters = row_count;
  return v_letters;
end $$;
comment on function tracking.erase_dead_letters is 'Erases lifecycle events that could not be written; answers how many.';
revoke execute on function tracking.erase_dead_letters from public;

-- The condition that an event is somebody's, as SQL.
create function tracking.is_whose(event text, subject text, whose uuid)
  returns text
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case subject
    when 'actor' then format('%I.actor_id = %L', event, whose)
    else format('%I.scope_id = %L and %1$I.org_id = %2$L', event, whose)
  end;
end $$;
comment on function tracking.is_whose is 'The condition that an event is a person''s, or an organization''s, as SQL.';
revoke execute on function tracking.is_whose from public;

-- Erases whole hours of somebody's events, the first ones: as many as have about so many events, and one at least. It
-- stops before an hour with events of a batch that is under way; and where that is the first one, says for which sinks
-- it waits. The rollup comes first, since that may take a while; the cursors are locked for the events alone. Where one
-- of them was leased meanwhile, which is seldom, all of it is left for another time.
create function tracking.erase_events(
  subject text, whose uuid, max_events integer, out events bigint, out more boolean, out waits_for text[])
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_whose constant text := tracking.is_whose('e', subject, whose);
  v_first timestamptz;
  v_next  timestamptz;
  v_until timestamptz := 'infinity';
  v_sinks text[];
  v_held  timestamptz;
begin
  execute format(
    'select (select e.occurred_at from public.events as e where %1$s order by e.occurred_at limit 1),
            (select e.occurred_at from public.events as e where %1$s order by e.occurred_at offset %2$s limit 1)',
    v_whose, max_events) into v_first, v_next;
  if v_next is not null then
    v_until := greatest(date_trunc('hour', v_next, 'UTC'), date_trunc('hour', v_first, 'UTC') + interval '1 hour');
  end if;
  select array_agg(distinct l.sink order by l.sink), date_trunc('hour', min(l.since), 'UTC') into v_sinks, v_held
  from   tracking.leases_with(v_whose, v_until) as l
  where  l.leased_until > clock_timestamp();
  v_until := least(v_until, v_held);
  more := v_until < 'infinity';
  events := 0;
  if v_until <= v_first then
    waits_for := v_sinks;
    return;
  end if;
  perform tracking.forget_activity(subject, whose, v_until);
  perform from tracking.cursors as c order by c.sink, c.shard for update; -- nothing of it is leased meanwhile
  perform tracking.end_leases_with(v_whose, v_until);
  events := tracking.take_events(v_whose, v_until);
end $$;
comment on function tracking.erase_events is
  'Erases the first hours of somebody''s events; answers how many events, whether there are more, and which sinks are '
  'waited for where there are none that can go. Errors: 55P03.';
revoke execute on function tracking.erase_events from public;

-- True where a cursor has an event before it still; as tracking.pending counts.
create function tracking.is_before(cursor tracking.cursors, epoch smallint, txid xid8, event_id uuid)
  returns boolean
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return epoch > cursor.epoch
    or epoch = cursor.epoch
    and not pg_visible_in_snapshot(txid, cursor.seen)
    and not (
      (cursor.until is null or pg_visible_in_snapshot(txid, cursor.until))
      and (txid, event_id) <= (cursor.position_txid, cursor.position_id));
end $$;
comment on function tracking.is_before is 'True where a cursor is not done with an event.';
revoke execute on function tracking.is_before from public;

-- The leases of batches, and those leased ahead, that have such events; and when the first of those happened.
create function tracking.leases_with(condition text, until timestamptz)
  returns table (sink text, shard smallint, leased_until timestamptz, since timestamptz)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  return query execute format($query$
    select c.sink, c.shard, c.leased_until, h.since::timestamptz
    from   tracking.cursors as c
    cross  join lateral (select count(*)::integer from tracking.cursors as o where o.sink = c.sink) as s (shards)
    cross  join lateral (
      select min(e.occurred_at) as since
      from   public.events as e
      where  %s
      and    e.occurred_at < %L
      and    e.epoch = c.epoch
      and    (e.txid, e.event_id) <= (coalesce(c.ahead_txid, c.batch_txid), coalesce(c.ahead_id, c.batch_id))
      and    (s.shards = 1 or (uuid_hash(e.scope_id) & 2147483647) %% s.shards = c.shard)
      and    (c.until is null or pg_visible_in_snapshot(e.txid, c.until))
      and    tracking.is_before(c, e.epoch, e.txid, e.event_id)
    ) as h
    where  c.lease is not null
    and    h.since is not null
  $query$, condition, until);
end $$;
comment on function tracking.leases_with is 'The leases of batches with such events, and when the first of those happened.';
revoke execute on function tracking.leases_with from public;

-- Ends leases that have run out: who comes back with one has lost it, and the batch is read anew. The cursors are locked.
create function tracking.end_leases_with(condition text, until timestamptz)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (select from tracking.leases_with(condition, until) as l where l.leased_until > clock_timestamp()) then
    raise lock_not_available using message = 'A worker has just taken some of the events.';
  end if;
  update tracking.cursors as c
  set    lease = null, leased_until = null,
         (batch_txid, batch_id, batch_wanted, batch_others) = (null, null, null, null),
         (ahead_lease, ahead_txid, ahead_id, ahead_wanted, ahead_others) = (null, null, null, null, null)
  from   tracking.leases_with(condition, end_leases_with.until) as l
  where  (c.sink, c.shard) = (l.sink, l.shard);
end $$;
comment on function tracking.end_leases_with is
  'Ends leases that have run out of batches with such events. Errors: 55P03 where one has not.';
revoke execute on function tracking.end_leases_with from public;

-- Takes events out of the log. Those that a shard of a sink is done with, its books have still: they count as expired.
create function tracking.take_events(condition text, until timestamptz)
  returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
declare
  v_events bigint;
begin
  execute format($query$
    with gone as (
      delete from public.events as e
      where  %s
      and    e.occurred_at < %L
      returning e.scope_id, e.event_id, e.epoch, e.txid
    ),
    booked as (
      insert into tracking.expired as x (sink, shard, events)
      select c.sink, c.shard, count(*)
      from   gone as g
      cross  join tracking.cursors as c
      cross  join lateral (select count(*)::integer from tracking.cursors as o where o.sink = c.sink) as s (shards)
      where  (s.shards = 1 or (uuid_hash(g.scope_id) & 2147483647) %% s.shards = c.shard)
      and    tracking.is_since(c.start_epoch, c.start_seen, g.epoch, g.txid)
      and    not tracking.is_before(c, g.epoch, g.txid, g.event_id)
      group  by c.sink, c.shard
      on     conflict on constraint expired_pkey do update set events = x.events + excluded.events
    )
    select count(*) from gone
  $query$, condition, until) into v_events;
  return v_events;
end $$;
comment on function tracking.take_events is 'Takes events out of the log, and has the sinks'' books balance; answers how many.';
revoke execute on function tracking.take_events from public;

-- Takes somebody's hours out of the rollup; and with the last of them, what kinds of events there were.
create function tracking.forget_activity(subject text, whose uuid, until timestamptz)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  if subject = 'actor' then
    delete from tracking.activity as a where a.actor_id = whose and a.hour < until;
  else
    delete from tracking.activity as a
    using  tracking.kinds as k
    where  a.kind_id = k.kind_id
    and    k.org_id = whose
    and    k.scope_id = whose
    and    a.hour < until;
  end if;
  if until = 'infinity' then
    delete from tracking.kinds as k
    where  k.scope_id = whose
    and    k.org_id is not distinct from case when subject = 'org' then whose end;
  end if;
end $$;
comment on function tracking.forget_activity is 'Takes somebody''s hours before a time out of the rollup.';
revoke execute on function tracking.forget_activity from public;

-- Erases events that sinks refused: their books have them as given up.
create function tracking.erase_undelivered(subject text, whose uuid, max_letters integer)
  returns bigint
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_letters record;
  v_erased  bigint := 0;
begin
  for v_letters in
    select l.sink, jsonb_agg(jsonb_build_object('scope_id', l.scope_id, 'event_id', l.event_id)) as events
    from   (
      select u.sink, u.scope_id, u.event_id
      from   tracking.undelivered as u
      where  u.event ->> (subject || '_id') = whose::text
      limit  max_letters
    ) as l
    group  by l.sink
    order  by l.sink
  loop
    v_erased := v_erased + tracking.settle_undelivered(v_letters.sink, 'dropped', v_letters.events);
  end loop;
  return v_erased;
end $$;
comment on function tracking.erase_undelivered is 'Erases events that sinks refused; answers how many.';
revoke execute on function tracking.erase_undelivered from public;


-- Telling the sinks ---------------------------------------------------------------------------------
-- A vendor erases what it got before it was told: so it is told a while after the last event can have been on its way,
-- and until it has said that it will.

create function tracking.end_erasure(erasure uuid)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update tracking.erasures as e set erased_at = clock_timestamp() where e.id = end_erasure.erasure;
  insert into tracking.erasure_notices (erasure, name, sink, retry_at)
  select end_erasure.erasure, s.name, s.name, clock_timestamp() + interval '5 minutes' from tracking.sinks as s;
  perform tracking.close_erasure(end_erasure.erasure);
end $$;
comment on function tracking.end_erasure is 'Says that the database has nothing left of somebody, and has the sinks told.';
revoke execute on function tracking.end_erasure from public;

-- When no sink is left to be told, nobody needs to know any more who it was.
create function tracking.close_erasure(erasure uuid)
  returns boolean
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update tracking.erasures as e
  set    done_at = clock_timestamp(), subject_id = null, email = null
  where  e.id = close_erasure.erasure
  and    e.done_at is null
  and    not exists (
    select from tracking.erasure_notices as n where n.erasure = e.id and n.outcome = 'waiting');
  return found;
end $$;
comment on function tracking.close_erasure is 'Ends an erasure where no sink is left to be told; true where that is so now.';
revoke execute on function tracking.close_erasure from public;

-- Says what came of telling a sink: told; impossible, where it cannot be told; or waiting, where it is to be told later,
-- after a pause that doubles up to six hours, or what the sink asked for. Somebody who sees to it by hand says told, too.
-- True where the erasure is done with that.
create function tracking.settle_notice(
  erasure uuid, name text, outcome text, detail text default null, retry_after interval default '0')
  returns boolean
  language plpgsql volatile security definer -- the service role may run it, and writes no notice by hand
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform from tracking.erasures as e where e.id = settle_notice.erasure for update;
  update tracking.erasure_notices as n
  set    outcome = settle_notice.outcome,
         detail = left(settle_notice.detail, 1000),
         tries = n.tries + case settle_notice.outcome when 'waiting' then 1 else 0 end,
         retry_at = case settle_notice.outcome when 'waiting' then clock_timestamp() + greatest(
           least(settle_notice.retry_after, '1 day'),
           least(interval '6 hours', interval '1 minute' * 2 ^ least(n.tries, 10)) * (0.5 + random() / 2)) end,
         ended_at = case when settle_notice.outcome <> 'waiting' then clock_timestamp() end
  where  n.erasure = settle_notice.erasure
  and    n.name = settle_notice.name
  and    n.outcome = 'waiting';
  return tracking.close_erasure(settle_notice.erasure);
end $$;
comment on function tracking.settle_notice is
  'Says what came of telling a sink of an erasure: told, impossible, or waiting to be told again, and why. True where the '
  'erasure is done with that.';
revoke execute on function tracking.settle_notice from public;
grant execute on function tracking.settle_notice to service_role;


-- What is held --------------------------------------------------------------------------------------

-- All that is held about a person, a row each: what it is, and the row as JSON. API keys are without their hashes.
create function tracking.export_actor(actor uuid)
  returns table (kind text, data jsonb)
  language plpgsql stable security definer -- the service role may run it, and may not read all of it
  set search_path = pg_catalog, pg_temp
  set timezone = 'UTC'
as $$
begin
  if actor is null then
    raise null_value_not_allowed using message = 'Name the actor whose data is to be exported.';
  end if;
  return query select 'event', to_jsonb(e) from public.events as e where e.actor_id = actor;
  return query
    select 'undelivered', to_jsonb(u) from tracking.undelivered as u where u.event ->> 'actor_id' = actor::text;
  return query select 'dead_letter', to_jsonb(d) from tracking.dead_letters as d where d.event ->> 'actor_id' = actor::text;
  return query select 'build', to_jsonb(b) from public.build_requests as b where b.requested_by = actor;
  return query select 'api_key', to_jsonb(k) - 'key_hash' from public.api_keys as k where k.owner_id = actor;
  return query
    select 'role', to_jsonb(b)
    from   tracking.role_bindings as b
    where  b.principal_id = actor
    or     b.principal_id in (select k.id from public.api_keys as k where k.owner_id = actor);
  return query select 'mail_optout', to_jsonb(o) from tracking.mail_optouts as o where o.actor_id = actor;
  return query select 'mail_due', to_jsonb(c) - 'due' from tracking.mail_claims as c where actor = any (c.due);
  return query select 'rate_window', to_jsonb(w) from tracking.rate_windows as w where w.actor_id = actor;
  return query
    select 'erasure', to_jsonb(e) - 'subject_hash'
    from   tracking.erasures as e
    where  e.subject = 'actor'
    and    e.subject_id = actor;
end $$;
comment on function tracking.export_actor is
  'All that is held about a person: rows of events, undelivered events, dead letters, builds, API keys without their '
  'hashes, roles, mails turned off or due, and erasures under way. Errors: 22004.';
revoke execute on function tracking.export_actor from public;
grant execute on function tracking.export_actor to service_role;

-- How much there is to erase, before it is.
create function tracking.count_held(subject text, whose uuid)
  returns table (events bigint, builds bigint, letters bigint, api_keys bigint, roles bigint)
  language plpgsql volatile security definer -- the service role may run it, and may not read all of it
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys constant uuid[] := tracking.keys_of(subject, whose);
begin
  if subject is null or subject not in ('actor', 'org') then
    raise invalid_parameter_value using message = 'What is held is held of an actor or of an org.';
  end if;
  execute format('select count(*) from public.events as e where %s', tracking.is_whose('e', subject, whose)) into events;
  select count(*) into builds
  from   public.build_requests as b
  where  case subject when 'actor' then b.requested_by = whose else b.owner_org = whose end;
  select (select count(*) from tracking.undelivered as u where u.event ->> (subject || '_id') = whose::text)
       + (select count(*) from tracking.dead_letters as d where d.event ->> (subject || '_id') = whose::text)
  into   letters;
  api_keys := cardinality(v_keys);
  select count(*) into roles
  from   tracking.role_bindings as b
  left   join public.apps as a on a.app_id = b.app_id
  where  case subject when 'actor' then b.principal_id = any (v_keys || whose) else coalesce(b.org_id, a.owner_org) = whose end;
  return next;
end $$;
comment on function tracking.count_held is
  'How much is held of an actor or an org: events, builds, letters that could not be delivered or written, API keys, roles.';
revoke execute on function tracking.count_held from public;
grant execute on function tracking.count_held to service_role;


-- Without a worker: where pg_cron is installed, it brings erasures to their end. Sinks are told by the function deliver.
do $$
begin
  if exists (select from pg_extension where extname = 'pg_cron') then
    perform cron.schedule('actorscope-continue-erasures', '* * * * *', 'select tracking.continue_erasures()');
  end if;
end $$;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
