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
  constraint app_comes_with_its_org check (app_id is null or org_id is not null),
  constraint event_id_is_a_uuid_v7_of_that_time check (occurred_at is not distinct from tracking.event_time(event_id)),
  constraint occurred_at_is_at_most_a_day_ahead check (occurred_at - received_at <= interval '24 hours'),
  constraint event_name_is_not_blank check (btrim(event, E' \t\n\r\f\x0b') <> ''),
  constraint event_name_is_at_most_200_characters check (length(event) <= 200),
  constraint channel_is_not_blank check (btrim(channel, E' \t\n\r\f\x0b') <> ''),
  constraint channel_is_at_most_100_characters check (length(channel) <= 100),
  constraint description_icon_and_parser_are_at_most_4000_characters check (length(concat(description, icon, parser)) <= 4000),
  constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
  constraint context_is_an_object check (jsonb_typeof(context) = 'object'),
  constraint tags_with_context_are_at_most_32_kb check (octet_length(concat(tags - 'org_id', context)) <= 32768),
  constraint tags_name_no_other_org check (coalesce(tags ->> 'org_id', org_id::text) is not distinct from org_id::text),
  constraint tags_name_no_other_app check (coalesce(nullif(tags ->> 'app_id', ''), app_id) = app_id),
  constraint tracking_version_is_1_or_2 check (tracking_version between 1 and 2),
  constraint source_is_client_service_or_trigger check (source in ('client', 'service', 'trigger'))
) partition by range (occurred_at);

create index events_actor_id_occurred_at on public.events (actor_id, occurred_at);
create index events_txid_event_id on public.events (txid, event_id);

comment on table public.events is 'The log: one row an event, written once, by track_event, a trigger or a direct insert.';
comment on column public.events.scope_id is 'What the row belongs to: the org, or the actor where there is no org.';
comment on column public.events.occurred_at is 'When it happened, to the millisecond: the time inside event_id.';
comment on column public.events.event_id is 'UUIDv7; one row in its scope, however often it is sent.';
comment on column public.events.org_id is 'The organization the event is grouped by; only ever one that the caller had a right to.';
comment on column public.events.actor_id is 'The person behind the event, from the credentials; null only for a service''s event of an org.';
comment on column public.events.app_id is 'The app, where the caller may read it; it belongs to org_id.';
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
comment on column public.events.clock_skew is 'received_at minus the client''s sent_at: how far its clock is behind, and the way here.';
comment on column public.events.received_at is 'When the transaction that wrote the row began.';
comment on column public.events.txid is 'The transaction that wrote the row: the log''s order for consumers.';
comment on column public.events.epoch is 'The log''s generation: raised when it is restored into another cluster, where txids start over.';

-- What falls outside the months that exist is kept here, and reported by tracking.partition_report.
create table tracking.events_default partition of public.events default;
comment on table tracking.events_default is 'Events outside the months that have a partition.';
alter table tracking.events_default enable row level security;


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

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
