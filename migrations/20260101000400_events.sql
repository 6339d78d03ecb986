-- migrate:up

-- Chapter 4: events.
--
-- The log. A row says who (actor_id), for whom (org_id), what (event) and when (occurred_at), and the
-- table itself refuses a row that lies: whatever must be true is a constraint or a policy
-- here, so that a direct insert can write nothing that track_event (chapter 5) would not.
--
-- It is partitioned by month of occurred_at (chapter 9 makes the months). The time is inside the id, so
-- the primary key is unique by id although it holds the partition key; it begins with the scope, so one
-- tenant never meets another's ids, and the table can be distributed by it.

create table public.events (
  scope_id         uuid           not null,
  occurred_at      timestamptz(3) not null,
  event_id         uuid           not null,
  org_id           uuid,
  actor_id         uuid                    default tracking.actor(),
  app_id           text,
  api_key_id       uuid                    default tracking.api_key(),
  event            text           not null,
  channel          text           not null default 'default',
  description      text,
  icon             text,
  parser           text,
  notify           boolean        not null default false,
  tags             jsonb          not null default '{}',
  context          jsonb          not null default '{}',
  tracking_version smallint       not null default 2,
  source           text           not null default tracking.source(),
  clock_skew       interval,
  received_at      timestamptz    not null default now(),
  txid             xid8           not null default pg_current_xact_id(),
  epoch            smallint       not null default 1,
  primary key (scope_id, occurred_at, event_id),

  constraint scope_is_the_org_or_else_the_actor check (scope_id is not distinct from coalesce(org_id, actor_id)),
  constraint actor_is_known_unless_a_service_speaks check (actor_id is not null or source = 'service'),
  constraint org_id_is_not_reserved check (org_id not in ('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')),
  constraint app_comes_with_its_org check (app_id is null or org_id is not null),
  constraint event_id_is_a_uuid_v7_of_that_time check (occurred_at is not distinct from tracking.event_time(event_id)),
  constraint occurred_at_is_at_most_a_day_ahead check (occurred_at - received_at <= interval '24 hours'),
  constraint event_name_is_not_blank check (btrim(event, E' \t\n\r\f\x0b') <> ''),
  constraint event_name_is_at_most_200_characters check (length(event) <= 200),
  constraint channel_is_not_blank check (btrim(channel, E' \t\n\r\f\x0b') <> ''),
  constraint channel_is_at_most_100_characters check (length(channel) <= 100),
  constraint description_icon_and_parser_are_at_most_4000_characters check (length(concat(description, icon, parser)) <= 4000),
  constraint app_id_is_at_most_200_characters check (length(app_id) <= 200),
  constraint clock_skew_is_at_most_36500_days check (clock_skew between '-36500 days' and '36500 days'),
  constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
  constraint context_is_an_object check (jsonb_typeof(context) = 'object'),
  constraint tags_with_context_are_at_most_32_kb check (octet_length(concat(tags - 'org_id', context)) <= 32768),
  constraint tags_name_no_other_org check (coalesce(tags ->> 'org_id', org_id::text) is not distinct from org_id::text),
  constraint tags_name_no_other_app check (coalesce(nullif(tags ->> 'app_id', ''), app_id) = app_id),
  constraint tracking_version_is_1_or_2 check (tracking_version between 1 and 2),
  constraint source_is_client_service_or_trigger check (source in ('client', 'service', 'trigger'))
) partition by range (occurred_at);

create index events_actor_id_occurred_at on public.events (actor_id, occurred_at);
create index events_epoch_txid_event_id on public.events (epoch, txid, event_id);

comment on table public.events is 'The log: one row an event, written once, by track_event, a trigger or a direct insert.';
comment on column public.events.scope_id is 'What the row belongs to: the org, or the actor where there is no org.';
comment on column public.events.occurred_at is 'When it happened, to the millisecond: the time inside event_id.';
comment on column public.events.event_id is 'UUIDv7; one row in its scope, however often it is sent.';
comment on column public.events.org_id is
  'The organization the event is grouped by; only ever one that the caller had a right to. Neither the nil nor the max UUID: the rollup has those for everybody.';
comment on column public.events.actor_id is 'The person behind the event, from the credentials; null only for a service''s event of an org.';
comment on column public.events.app_id is 'The app, where the caller may read it; it belongs to org_id. Up to 200 characters.';
comment on column public.events.api_key_id is 'The API key that was used, if one was.';
comment on column public.events.event is 'What happened: up to 200 characters.';
comment on column public.events.channel is 'The family of the event: up to 100 characters.';
comment on column public.events.description is 'A sentence for people: up to 4,000 characters.';
comment on column public.events.icon is 'An emoji.';
comment on column public.events.parser is 'How a sink shall show the description, such as markdown.';
comment on column public.events.notify is 'Whether sinks shall notify people.';
comment on column public.events.tags is 'Properties of the event that may also describe the person. org_id in it is the verified one, or absent.';
comment on column public.events.context is 'Properties of the event alone (nonPersonTags in the payload).';
comment on column public.events.tracking_version is 'The version of the payload: 1 or 2.';
comment on column public.events.source is 'client, service (the service role) or trigger (the database itself).';
comment on column public.events.clock_skew is 'received_at minus the client''s sent_at: how far its clock is behind, and the way here. A hundred years at most.';
comment on column public.events.received_at is 'When the transaction that wrote the row began.';
comment on column public.events.txid is 'The transaction that wrote the row: the log''s order for consumers.';
comment on column public.events.epoch is 'The log''s generation: raised when it is restored into another cluster, where txids start over.';

-- What falls outside the months that exist is kept here, and reported by tracking.partition_report.
create table tracking.events_default partition of public.events default;
comment on table tracking.events_default is 'Events outside the months that have a partition.';
alter table tracking.events_default enable row level security;


-- Kinds of events -----------------------------------------------------------------------------------
-- A project may declare its events: which tags each has, and which values those may take. What is declared
-- here binds whatever comes through the RPCs, and clients' direct inserts; builds speak for themselves.

-- Whether this declares tags: {"step": "string", "duration_ms?": "integer", "platform": ["ios", "android"]}.
create function tracking.are_tag_types(tags jsonb)
  returns boolean
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return jsonb_typeof(tags) = 'object' and not exists (
    select
    from   jsonb_each(tags) as t (name, type)
    where  rtrim(t.name, '?') = ''
    or     not case jsonb_typeof(t.type)
      when 'string' then t.type in ('"string"', '"number"', '"integer"', '"boolean"', '"json"')
      when 'array' then t.type <> '[]' and not jsonb_path_exists(t.type, 'strict $[*] ? (@.type() <> "string")')
      else false
    end
  );
end $$;
comment on function tracking.are_tag_types is
  'True for an object of tags by name ("?" at the end: may be left out), each string, number, integer, boolean, json, or an array of the strings it may be.';
revoke execute on function tracking.are_tag_types from public;

create table tracking.event_types (
  event       text primary key,
  channel     text,
  icon        text,
  scope       text  not null default 'org',
  description text,
  tags        jsonb not null default '{}',
  mode        text  not null default 'warn',
  constraint event_type_is_named check (btrim(event, E'* \t\n\r\f\x0b') <> '' and length(event) <= 200),
  constraint scope_is_actor_org_or_app check (scope in ('actor', 'org', 'app')),
  constraint tags_have_types check (tracking.are_tag_types(tags)),
  constraint mode_is_off_warn_or_enforce check (mode in ('off', 'warn', 'enforce'))
);
comment on table tracking.event_types is 'The kinds of events that the project has declared. An event of no kind is not looked at.';
comment on column tracking.event_types.event is 'The name of the event; one that ends in * stands for all that begin so, the longest first.';
comment on column tracking.event_types.channel is 'The channel that clients send it in.';
comment on column tracking.event_types.icon is 'The icon that clients send with it.';
comment on column tracking.event_types.scope is 'Whom it is about: actor, org or app.';
comment on column tracking.event_types.description is 'What it tells, in a sentence.';
comment on column tracking.event_types.tags is 'Its tags and their types, as tracking.are_tag_types has them; app_id, app-id and org_id need no entry.';
comment on column tracking.event_types.mode is
  'What becomes of an event with other tags: off, recorded; warn, recorded with a warning in the answer; enforce, refused with invalid_tags.';
alter table tracking.event_types enable row level security;

-- Looks an event up among the kinds, and says what is wrong with its tags: {mode, sentence, …}, or null where
-- nothing is. A tag that is null counts as absent.
-- Security definer: clients may not read the kinds.
create function tracking.faults_in_tags(event text, tags jsonb)
  returns text[]
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_name   constant text := faults_in_tags.event;
  v_type   tracking.event_types;
  v_faults text[];
begin
  select t.* into v_type from tracking.event_types as t where t.event = v_name;
  if not found then
    select t.* into v_type
    from   tracking.event_types as t
    where  right(t.event, 1) = '*'
    and    starts_with(v_name, left(t.event, -1))
    order  by length(t.event) desc
    limit  1;
  end if;
  if coalesce(v_type.mode, 'off') = 'off' then
    return null;
  end if;
  v_faults := array(
    select format('The tag "%s" of "%s" %s.', left(f.name, 100), v_name, f.fault)
    from   (
      select s.name, case
               when d.type is null then 'is unknown'
               when jsonb_typeof(d.type) = 'array' then
                 case when jsonb_typeof(s.value) <> 'string' or not d.type @> s.value
                      then format('is none of %s', left(btrim(d.type::text, '[]'), 500)) end
               when d.type = '"integer"' then
                 case when jsonb_typeof(s.value) <> 'number' or s.value::numeric % 1 <> 0 then 'is not an integer' end
               when d.type <> '"json"' and to_jsonb(jsonb_typeof(s.value)) <> d.type then format('is not a %s', d.type ->> 0)
             end as fault
      from   jsonb_each(faults_in_tags.tags) as s (name, value),
             lateral (select case when right(s.name, 1) <> '?' then coalesce(v_type.tags -> s.name, v_type.tags -> (s.name || '?')) end) as d (type)
      where  s.name not in ('app_id', 'app-id', 'org_id')
      and    (s.value <> 'null' or d.type is null)
      union  all
      select d.name, 'is missing'
      from   jsonb_object_keys(v_type.tags) as d (name)
      where  right(d.name, 1) <> '?'
      and    coalesce(faults_in_tags.tags -> d.name, 'null') = 'null'
    ) as f
    where  f.fault is not null
    order  by f.name
    limit  10
  );
  return case when v_faults <> '{}' then v_type.mode || v_faults end;
end $$;
comment on function tracking.faults_in_tags is
  'Null where the tags are as the kind of the event has them, or the event has no kind; else {mode of the kind, a sentence for each fault, ten at most}.';
revoke execute on function tracking.faults_in_tags from public;
grant execute on function tracking.faults_in_tags to anon, authenticated;

-- The first fault in a catalog, as a sentence; or null.
create function tracking.fault_in_catalog(catalog jsonb)
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if jsonb_typeof(catalog) is distinct from 'object' then
    return 'A catalog is an object of kinds of events by name.';
  end if;
  return (
    select format('%s: %s.', to_json(left(f.name, 100)), f.fault)
    from   (
      select d.name, case
               when btrim(d.name, E'* \t\n\r\f\x0b') = '' or length(d.name) > 200 then 'a name is 1 to 200 characters, not blank'
               when jsonb_typeof(d.type) <> 'object' then 'a kind of event is an object'
               when d.type - '{channel,icon,scope,description,tags}'::text[] <> '{}' then 'the fields are channel, icon, scope, description and tags'
               when jsonb_path_exists(d.type - 'tags', '$.* ? (@.type() <> "string")') then 'channel, icon, scope and description are strings'
               when d.type ->> 'scope' not in ('actor', 'org', 'app') then 'scope is actor, org or app'
               when not tracking.are_tag_types(coalesce(d.type -> 'tags', '{}'))
                 then 'tags are string, number, integer, boolean, json, or an array of the strings that they may be'
             end as fault
      from   jsonb_each(catalog) as d (name, type)
    ) as f
    where  f.fault is not null
    order  by f.name
    limit  1
  );
end $$;
comment on function tracking.fault_in_catalog is 'What is wrong with a catalog of kinds of events, as a sentence; null where nothing is.';
revoke execute on function tracking.fault_in_catalog from public;

-- Declares kinds of events: the catalog that the TypeScript client is given, as JSON. With a mode, all of them
-- get it; without, each keeps the one it has, and a new one warns. Pruning takes away what the catalog lacks.
create function tracking.push_event_types(catalog jsonb, mode text default null, prune boolean default false)
  returns table (event text, change text)
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_fault constant text := case
    when push_event_types.mode not in ('off', 'warn', 'enforce') then format('%L is not a mode: off, warn or enforce.', left(push_event_types.mode, 20))
    else tracking.fault_in_catalog(catalog)
  end;
begin
  if v_fault is not null then
    raise invalid_parameter_value using
      message = 'invalid_catalog',
      detail = v_fault,
      hint = 'Declare each kind of event as {channel, icon, scope, description, tags}.';
  end if;
  lock table tracking.event_types in share row exclusive mode;
  return query
    with declared as (
      select d.name, d.type ->> 'channel' as channel, d.type ->> 'icon' as icon, coalesce(d.type ->> 'scope', 'org') as scope,
             d.type ->> 'description' as description, coalesce(d.type -> 'tags', '{}') as tags,
             coalesce(push_event_types.mode, t.mode, 'warn') as mode, t as before
      from   jsonb_each(catalog) as d (name, type)
      left   join tracking.event_types as t on t.event = d.name
    ),
    pushed as (
      insert into tracking.event_types as t (event, channel, icon, scope, description, tags, mode)
      select d.name, d.channel, d.icon, d.scope, d.description, d.tags, d.mode
      from   declared as d
      on     conflict on constraint event_types_pkey do update
        set (channel, icon, scope, description, tags, mode) =
            (excluded.channel, excluded.icon, excluded.scope, excluded.description, excluded.tags, excluded.mode)
      returning t as after
    ),
    pruned as (
      delete from tracking.event_types as t
      where  prune
      and    not catalog ? t.event
      returning t.event
    )
    select (p.after).event, case when d.before is null then 'added' when d.before = p.after then 'unchanged' else 'changed' end
    from   pushed as p
    join   declared as d on d.name = (p.after).event
    union  all
    select r.event, 'removed' from pruned as r
    order  by 1;
end $$;
comment on function tracking.push_event_types is
  'Declares kinds of events: {name: {channel, icon, scope, description, tags}}; answers added, changed, unchanged or removed for each. Errors: invalid_catalog (22023).';
revoke execute on function tracking.push_event_types from public;
grant execute on function tracking.push_event_types to service_role;


-- Who may write -------------------------------------------------------------------------------------
-- The policy is the rule. The column grants are a second line: Supabase's default privileges, and the
-- "grant all" that many projects run, undo them, and nothing opens to clients when they are undone. The
-- service role, which no policy binds, may name an actor and an org.

alter table public.events enable row level security;
revoke all on public.events from anon, authenticated, service_role;
grant select on public.events to anon, authenticated, service_role;
grant insert (
  scope_id, occurred_at, event_id, org_id, app_id, event, channel, description, icon, parser, notify,
  tags, context, tracking_version, clock_skew
) on public.events to anon, authenticated;
grant insert (
  scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, description, icon, parser, notify,
  tags, context, tracking_version, clock_skew
) on public.events to service_role;

create policy "people write events as themselves, for what they may read" on public.events
  for insert to anon, authenticated
  with check (
    actor_id = (select tracking.actor())
    and api_key_id is not distinct from (select tracking.api_key())
    and source = 'client'
    and received_at = now()
    and txid = pg_current_xact_id()
    and epoch = 1
    and case
      when app_id is not null then (app_id, org_id) in (select r.app_id, r.owner_org from app.readable() as r)
      when org_id is not null then org_id in (select org.readable())
      else true
    end
    and coalesce((tracking.faults_in_tags(event, tags))[1] <> 'enforce', true)
  );

-- No policy lets anybody change or delete a row; and nobody whom policies bind may empty the table.
create trigger events_are_not_truncated before truncate on public.events
  for each statement execute function tracking.refuse_truncate();


-- Who may read --------------------------------------------------------------------------------------
-- The org's rows are found by scope_id, where the primary key begins. Rows of nobody's org are their
-- actor's own, and not for API keys, which are lent to machines.

create policy "people read the events of their orgs and apps, and their own" on public.events
  for select to anon, authenticated
  using (
    scope_id = any (array(select org.readable()))
    or (
      scope_id = any (array(select r.owner_org from app.readable() as r))
      and app_id = any (array(select r.app_id from app.readable() as r))
    )
    or (
      scope_id = (select tracking.actor())
      and org_id is null
      and (select tracking.api_key()) is null
    )
  );


-- Reading on ----------------------------------------------------------------------------------------

-- The log's generation. A dump that was restored into another cluster is known by this row: there, its
-- transaction is not the one that it names.
create table tracking.log (
  only_row   boolean  primary key default true,
  epoch      smallint not null default 1,
  written_by xid      not null default '0',
  constraint log_has_one_row check (only_row)
);
comment on table tracking.log is 'The log''s generation; changed by tracking.raise_epoch() alone.';
comment on column tracking.log.only_row is 'True: keeps the table at one row.';
comment on column tracking.log.epoch is 'The generation that is written now.';
comment on column tracking.log.written_by is 'The transaction that wrote this row: its own xmin, until it is restored elsewhere.';
alter table tracking.log enable row level security;
-- In one block, since each statement of a script may be a subtransaction with an id of its own.
do $$
begin
  insert into tracking.log default values;
  update tracking.log set written_by = xmin;
end $$;

create function tracking.current_epoch()
  returns smallint
  language plpgsql stable security definer -- clients may not read tracking.log
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select l.epoch from tracking.log as l);
end $$;
comment on function tracking.current_epoch is 'The generation of the log that is written now.';
revoke execute on function tracking.current_epoch from public;
grant execute on function tracking.current_epoch to anon, authenticated, service_role;

-- What is committed now: the snapshot that a cursor is. Postgres's own leaves two things out, and events would be
-- taken for seen that are not: the transaction that asks, which may write more; and on a replica, whoever is writing.
-- There, all is left for later that is not older than the oldest of them.
create function tracking.current_snapshot()
  returns pg_snapshot
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_now  constant pg_snapshot := pg_current_snapshot();
  v_xmin constant xid8 := pg_snapshot_xmin(v_now);
  v_xmax constant xid8 := pg_snapshot_xmax(v_now);
  v_own  xid8;
begin
  if pg_is_in_recovery() then
    return format('%1$s:%1$s:', v_xmin);
  end if;
  v_own := pg_current_xact_id_if_assigned();
  if v_own < v_xmax then
    return format('%s:%s:%s', least(v_own, v_xmin), v_xmax, array_to_string(array(
      select x.txid from pg_snapshot_xip(v_now) as x (txid) union select v_own order by 1), ','));
  end if;
  return v_now;
end $$;
comment on function tracking.current_snapshot is 'What is committed now: neither what is under way, nor what this transaction wrote or will write.';
revoke execute on function tracking.current_snapshot from public;
grant execute on function tracking.current_snapshot to anon, authenticated, service_role;

-- Which of a number of shards a scope falls to.
create function tracking.shard_of(scope_id uuid, shards integer)
  returns integer
  language plpgsql immutable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (uuid_hash(scope_id) & 2147483647) % shards;
end $$;
comment on function tracking.shard_of is 'The shard of a scope, from 0 on.';
revoke execute on function tracking.shard_of from public;
grant execute on function tracking.shard_of to anon, authenticated, service_role;

-- The events, of one generation, that one snapshot sees and an earlier one did not, after a position, in the
-- order of transactions: first those that were under way when the earlier one was taken, then the later ones.
-- Two scopes may have events of one id in one transaction; such a pair is never cut in two. Pinned to the index:
-- with many events in one transaction, the planner would rather sort the log. (What tracking.shard_of does is spelled
-- out: a call for each event would cost more than to read it.)
create function tracking.next_events(
  epoch smallint, seen pg_snapshot, until pg_snapshot, position_txid xid8, position_id uuid, max_events integer,
  shard integer default 0, shards integer default 1)
  returns setof public.events
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan
  set enable_seqscan = off
  set enable_bitmapscan = off
  set max_parallel_workers_per_gather = 0
  set jit = off
as $$
declare
  v_no_id    constant uuid := '00000000-0000-0000-0000-000000000000';
  v_until    constant pg_snapshot := coalesce(until, '9223372036854775807:9223372036854775807:');
  v_is_late  constant boolean := position_txid < pg_snapshot_xmax(seen);
  v_from     constant xid8 := case when v_is_late then pg_snapshot_xmax(seen) else position_txid end;
  v_after_id constant uuid := case when v_is_late then v_no_id else position_id end;
  v_found    integer := 0;
begin
  if v_is_late and pg_snapshot_xmin(seen) < pg_snapshot_xmax(seen) then
    return query
      select e.*
      from   pg_snapshot_xip(seen) as late (txid)
      cross  join lateral (
        select n.*
        from   public.events as n
        where  n.epoch = next_events.epoch
        and    n.txid = late.txid
        and    n.event_id > case when late.txid = position_txid then position_id else v_no_id end
        and    (shards = 1 or (uuid_hash(n.scope_id) & 2147483647) % shards = shard)
        order  by n.txid, n.event_id
        fetch  first (max_events) rows with ties
      ) as e
      where  late.txid >= position_txid
      and    pg_visible_in_snapshot(late.txid, v_until)
      order  by e.txid, e.event_id
      fetch  first (max_events) rows with ties;
    get diagnostics v_found = row_count;
  end if;
  if v_found >= max_events then
    return;
  end if;
  return query
    select e.*
    from   public.events as e
    where  e.epoch = next_events.epoch
    and    (e.txid, e.event_id) > (v_from, v_after_id)
    and    e.txid < pg_snapshot_xmax(v_until)
    and    pg_visible_in_snapshot(e.txid, v_until)
    and    (shards = 1 or (uuid_hash(e.scope_id) & 2147483647) % shards = shard)
    order  by e.txid, e.event_id
    fetch  first (max_events - v_found) rows with ties;
end $$;
comment on function tracking.next_events is
  'Events between two snapshots (until null: up to the end), after a position, in the order (txid, event_id), under the caller''s rights.';
revoke execute on function tracking.next_events from public;
grant execute on function tracking.next_events to anon, authenticated, service_role;

-- Says what has been committed since it was last asked, under the caller's rights, each event once. The cursor
-- is a snapshot: what it did not see is new, however late it committed. What is too much for one answer is
-- cut at a position between two snapshots.
create function public.read_events(after jsonb default null, max_events integer default 500)
  returns jsonb
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch  constant smallint := tracking.current_epoch();
  v_seen   pg_snapshot;
  v_now    pg_snapshot;
  v_txid   xid8;
  v_id     uuid;
  v_events public.events[];
begin
  begin
    if (after ->> 'epoch')::smallint <> v_epoch then
      after := '{"seen": "1:1:"}';
    end if;
    v_seen := coalesce((after ->> 'seen')::pg_snapshot, tracking.current_snapshot());
    v_now := coalesce((after ->> 'until')::pg_snapshot, tracking.current_snapshot());
    v_txid := coalesce((after ->> 'txid')::xid8, '0');
    v_id := coalesce((after ->> 'event_id')::uuid, '00000000-0000-0000-0000-000000000000');
    if pg_snapshot_xmax(v_now) < pg_snapshot_xmax(v_seen) then
      v_now := v_seen; -- on a replica that is behind another
    end if;
  exception when invalid_text_representation or numeric_value_out_of_range then
    perform tracking.raise_error('invalid_payload', 'after is not a cursor of read_events.', 'Send the cursor of the last answer, or none.');
  end;
  if max_events is null or max_events not between 1 and 1000 then
    perform tracking.raise_error('invalid_payload', 'max_events is not between 1 and 1000.', 'Ask for fewer events; the cursor leads to the rest.');
  end if;

  v_events := array(select e from tracking.next_events(v_epoch, v_seen, v_now, v_txid, v_id, max_events) as e);
  return jsonb_build_object(
    'cursor', case
      when cardinality(v_events) < max_events then jsonb_build_object('epoch', v_epoch, 'seen', v_now)
      else jsonb_build_object('epoch', v_epoch, 'seen', v_seen, 'until', v_now,
        'txid', (v_events[cardinality(v_events)]).txid, 'event_id', (v_events[cardinality(v_events)]).event_id)
    end,
    'events', to_jsonb(v_events));
end $$;
comment on function public.read_events is
  'Events that the caller may read and that were committed since a cursor: {cursor, events}, in the order of transactions. Without a cursor it begins now. Errors: invalid_payload.';
revoke execute on function public.read_events from public, anon, authenticated, service_role;
grant execute on function public.read_events to anon, authenticated, service_role;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
