-- migrate:up

-- Chapter 7.1: reactions.
--
-- What a sink tells besides the events themselves, and whom. Sinks that know groups are told an org's name; and an
-- event may be the occasion for a mail to the org's admins. Both hang on an event, so that whoever sends it again
-- tells the same again, and a replay of others tells nothing.


-- Names and addresses -------------------------------------------------------------------------------
-- The seam again: what sinks tell of orgs, apps and people besides their ids. Replace these functions to take
-- it from elsewhere. They are for the service role alone, and security definer, since it may not read what they do.

create function org.name(org_id uuid)
  returns text
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select o.name from public.orgs as o where o.id = name.org_id);
end $$;
comment on function org.name is 'What the organization is called, or null where there is no such one.';

create function app.name(app_id text)
  returns text
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select a.name from public.apps as a where a.app_id = name.app_id);
end $$;
comment on function app.name is 'What the app is called, or null where there is no such one.';

-- Where a person reads mail. Supabase's Auth knows; a database without it knows nobody.
create function tracking.email(actor_id uuid)
  returns text
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('auth.users') is null then
    return null;
  end if;
  return (
    select nullif(u.email, '')
    from   auth.users as u
    where  u.id = email.actor_id
    and    u.deleted_at is null
  );
end $$;
comment on function tracking.email is 'The person''s address for mail; null where there is none, or no such person.';

-- Who gets an organization's mail: people, not API keys.
create function org.admins(org_id uuid)
  returns table (actor_id uuid, email text)
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select a.person, a.address
    from   (
      select m.person, tracking.email(m.person) as address
      from   (
        select distinct b.principal_id as person
        from   tracking.role_bindings as b
        join   tracking.role_permissions as p using (role)
        where  b.org_id = admins.org_id
        and    p.permission = 'org.manage'
      ) as m
    ) as a
    where  a.address is not null
    order  by a.person;
end $$;
comment on function org.admins is 'The people who manage the organization and have an address for mail.';

revoke execute on function org.name, app.name, tracking.email, org.admins from public;
grant execute on function org.name, app.name, tracking.email, org.admins to service_role;


-- Groups --------------------------------------------------------------------------------------------
-- PostHog knows an org's name only from an event of its own, $groupidentify. It goes ahead of the org's first
-- event in a sink, and of the next one after the name changed. Which event that is, is kept: sent again, that
-- event takes the same announcement along, whatever worker sends it, and in whatever batch.

create table tracking.announced_orgs (
  sink        text        not null references tracking.sinks (name) on update cascade on delete cascade,
  org_id      uuid        not null,
  name        text        not null,
  event_id    uuid        not null,
  occurred_at timestamptz not null,
  sent_at     timestamptz,
  primary key (sink, org_id)
);
comment on table tracking.announced_orgs is 'The name under which each sink knows each organization.';
comment on column tracking.announced_orgs.name is 'The name that was announced.';
comment on column tracking.announced_orgs.event_id is 'The event that the announcement goes ahead of,';
comment on column tracking.announced_orgs.occurred_at is 'and its time, which is the announcement''s.';
comment on column tracking.announced_orgs.sent_at is 'When the sink first took it; null: not yet.';
alter table tracking.announced_orgs enable row level security;
grant select on tracking.announced_orgs to service_role;

-- Says which orgs to announce, and ahead of which event, given the events of a batch in order. An announcement
-- that no sink took, because its event was refused, moves on to the org's next event.
create function tracking.announce_orgs(sink text, org_ids uuid[], event_ids uuid[], occurred_at timestamptz[])
  returns table (org_id uuid, name text, event_id uuid, announced_at timestamptz, announcement_id uuid)
  language plpgsql volatile security definer -- the service role may run it, and announces nothing by hand
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  return query
    with firsts as materialized (
      select f.org_id, f.event_id, f.occurred_at, f.event_ids, org.name(f.org_id) as name
      from   (
        select s.org_id, array_agg(s.event_id) as event_ids,
               (array_agg(s.event_id order by s.n))[1] as event_id,
               (array_agg(s.occurred_at order by s.n))[1] as occurred_at
        from   unnest(org_ids, event_ids, announce_orgs.occurred_at)
                 with ordinality as s (org_id, event_id, occurred_at, n)
        group  by s.org_id
      ) as f
    ),
    known as materialized (
      select a.* from tracking.announced_orgs as a where a.sink = announce_orgs.sink and a.org_id = any (org_ids)
    ),
    changed as (
      insert into tracking.announced_orgs as a (sink, org_id, name, event_id, occurred_at)
      select announce_orgs.sink, f.org_id, f.name, f.event_id, f.occurred_at
      from   firsts as f
      left   join known as k using (org_id)
      where  f.name is not null
      and    (k.name is distinct from f.name or k.sent_at is null and k.event_id <> all (f.event_ids))
      on     conflict on constraint announced_orgs_pkey do update
        set (name, event_id, occurred_at, sent_at) = (excluded.name, excluded.event_id, excluded.occurred_at, null)
      returning a.*
    )
    select d.org_id, d.name, d.event_id, d.occurred_at,
           tracking.derived_event_id(format('$groupidentify %s %s', d.event_id, d.name), d.occurred_at)
    from   (
      select c.* from changed as c
      union all
      select k.* from known as k where k.org_id not in (select c.org_id from changed as c)
    ) as d
    join   firsts as f using (org_id)
    where  d.event_id = any (f.event_ids);
end $$;
comment on function tracking.announce_orgs is
  'The organizations to announce with a batch: each with its name, the event to send it ahead of, and the time and id '
  'of the announcement, which are the same whenever that event is sent.';
revoke execute on function tracking.announce_orgs from public;
grant execute on function tracking.announce_orgs to service_role;

-- Says that a sink took announcements.
create function tracking.confirm_orgs(sink text, org_ids uuid[])
  returns void
  language plpgsql volatile security definer -- the service role may run it, and announces nothing by hand
  set search_path = pg_catalog, pg_temp
as $$
begin
  update tracking.announced_orgs as a
  set    sent_at = clock_timestamp()
  where  a.sink = confirm_orgs.sink
  and    a.org_id = any (confirm_orgs.org_ids)
  and    a.sent_at is null;
end $$;
comment on function tracking.confirm_orgs is 'Notes that a sink took the announcements of these organizations.';
revoke execute on function tracking.confirm_orgs from public;
grant execute on function tracking.confirm_orgs to service_role;


-- Reactions -----------------------------------------------------------------------------------------
-- An event may be the occasion for a mail to the admins of its org. Which mail, and how often at most, is a row
-- of tracking.reactions. The event must have a verified org and an app: the org is the row's org_id, which the
-- database itself verified, and never anything that a payload says.
--
-- A mail is due once for an app and a window of time. The first event to ask for it claims it, with the people
-- who are to get it; whoever sends that event again, sends the mail to those who have not got it yet, and nobody
-- else. So a retry gives the same mails, and a replay none. The window is of the time when events were received,
-- which clients have no hand in.

create table tracking.reactions (
  name          text     primary key,
  event         text     not null,
  channel       text,
  tags          jsonb    not null default '{}',
  mail          text     not null,
  preference    text     not null,
  details       text[]   not null default '{}',
  at_most_every interval not null default '1 minute',
  max_age       interval not null default '3 days',
  enabled       boolean  not null default true,
  constraint tags_are_an_object check (jsonb_typeof(tags) = 'object'),
  constraint window_is_fixed check (
    at_most_every >= '1 second' and date_part('year', at_most_every) = 0 and date_part('month', at_most_every) = 0),
  constraint max_age_is_positive check (max_age > '0')
);
comment on table tracking.reactions is
  'Mails to the admins of an organization that an event is the occasion for: a row each.';
comment on column tracking.reactions.event is 'The name of the event.';
comment on column tracking.reactions.channel is 'Its channel; null: any.';
comment on column tracking.reactions.tags is 'What its tags must contain, such as {"step": "done"}.';
comment on column tracking.reactions.mail is 'The mail: what the vendor calls the type of its event.';
comment on column tracking.reactions.preference is
  'The kind of mail that people may turn off, in tracking.mail_optouts.';
comment on column tracking.reactions.details is
  'Tags of the event that the mail is told, besides org_id, org_name, app_id and app_name.';
comment on column tracking.reactions.at_most_every is
  'The window: one mail an app in each. They are counted from the epoch on.';
comment on column tracking.reactions.max_age is
  'An event that is older by the time it is sent is the occasion for no mail.';
comment on column tracking.reactions.enabled is 'False: no mail.';
alter table tracking.reactions enable row level security;
grant select, insert, update, delete on tracking.reactions to service_role;

create table tracking.mail_optouts (
  actor_id   uuid        not null,
  preference text        not null,
  since      timestamptz not null default now(),
  primary key (actor_id, preference)
);
comment on table tracking.mail_optouts is 'Which kinds of mail people have turned off.';
comment on column tracking.mail_optouts.preference is 'As in tracking.reactions.';
comment on column tracking.mail_optouts.since is 'When they did.';
alter table tracking.mail_optouts enable row level security;
grant select, insert, delete on tracking.mail_optouts to service_role;

create table tracking.mail_claims (
  reaction     text        not null references tracking.reactions (name) on update cascade on delete cascade,
  app_id       text        not null,
  window_start timestamptz not null,
  sink         text        references tracking.sinks (name) on update cascade on delete set null,
  scope_id     uuid        not null,
  event_id     uuid        not null,
  due          uuid[]      not null,
  primary key (reaction, app_id, window_start)
);
comment on table tracking.mail_claims is
  'Which event is the occasion for the mail of an app and a window, and who has still to get it.';
comment on column tracking.mail_claims.window_start is 'When the window begins.';
comment on column tracking.mail_claims.sink is 'The sink that sends it (null: it is no more),';
comment on column tracking.mail_claims.event_id is 'with this event.';
comment on column tracking.mail_claims.due is 'People who have not got it.';
alter table tracking.mail_claims enable row level security;
grant select on tracking.mail_claims to service_role;

-- True where somebody has turned a kind of mail off.
create function tracking.is_opted_out(actor_id uuid, preference text)
  returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from   tracking.mail_optouts as x
    where  x.actor_id = is_opted_out.actor_id
    and    x.preference = is_opted_out.preference
  );
end $$;
comment on function tracking.is_opted_out is 'True where the person has turned that kind of mail off.';
revoke execute on function tracking.is_opted_out from public;

-- The events among these that are the occasion for a mail, in order, each with the window that it falls in.
create function tracking.mail_occasions(events jsonb)
  returns table (n bigint, reaction tracking.reactions, event public.events, window_start timestamptz)
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select t.n, r, e, date_bin(r.at_most_every, e.received_at, 'epoch')
    from   jsonb_array_elements(events) with ordinality as t (event, n)
    cross  join lateral jsonb_populate_record(null::public.events, t.event) as e
    join   tracking.reactions as r on r.event = e.event
    where  r.enabled
    and    e.app_id is not null -- and so, as the log has it, an org
    and    (r.channel is null or r.channel = e.channel)
    and    e.tags @> r.tags;
end $$;
comment on function tracking.mail_occasions is
  'The events that are the occasion for a mail: the place of each, its reaction, the event, and the window it falls '
  'in.';
revoke execute on function tracking.mail_occasions from public;

-- Says which mails go out with a batch of events, given as rows of public.events in order: those of windows
-- that these events claim now, and what is left of those that they claimed before.
create function tracking.mails_due(sink text, events jsonb)
  returns table (reaction text, scope_id uuid, event_id uuid, actor_id uuid, email text, mail text, details jsonb)
  language plpgsql volatile security definer -- the service role may run it, and claims nothing by hand
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  -- What nobody can claim any more is forgotten.
  delete from tracking.mail_claims as c
  using  tracking.mail_occasions(events) as o
  where  c.reaction = (o.reaction).name
  and    c.app_id = (o.event).app_id
  and    c.window_start < now() - (o.reaction).max_age - (o.reaction).at_most_every
  and    c.due = '{}';

  insert into tracking.mail_claims (reaction, app_id, window_start, sink, scope_id, event_id, due)
  select f.reaction, f.app_id, f.window_start, mails_due.sink, f.scope_id, f.event_id, array(
           select a.actor_id
           from   org.admins(f.org_id) as a
           where  not tracking.is_opted_out(a.actor_id, f.preference))
  from   (
    select distinct on ((o.reaction).name, (o.event).app_id, o.window_start)
           (o.reaction).name as reaction, (o.reaction).preference, o.window_start, (o.event).*
    from   tracking.mail_occasions(events) as o
    where  least((o.event).occurred_at, (o.event).received_at) > now() - (o.reaction).max_age
    order  by (o.reaction).name, (o.event).app_id, o.window_start, o.n
  ) as f
  on     conflict do nothing;

  return query
    select c.reaction, c.scope_id, c.event_id, a.actor_id, a.email, (o.reaction).mail,
           coalesce((
             select jsonb_object_agg(t.key, t.value)
             from   jsonb_each((o.event).tags) as t
             where  t.key = any ((o.reaction).details)
           ), '{}') || jsonb_build_object(
                'org_id', (o.event).org_id, 'org_name', org.name((o.event).org_id),
                'app_id', (o.event).app_id, 'app_name', coalesce(app.name((o.event).app_id), (o.event).app_id))
    from   tracking.mail_occasions(events) as o
    join   tracking.mail_claims as c
    on     (c.reaction, c.app_id, c.window_start) = ((o.reaction).name, (o.event).app_id, o.window_start)
    and    (c.sink, c.scope_id, c.event_id) = (mails_due.sink, (o.event).scope_id, (o.event).event_id)
    cross  join lateral org.admins((o.event).org_id) as a
    where  a.actor_id = any (c.due)
    and    not tracking.is_opted_out(a.actor_id, (o.reaction).preference)
    order  by o.n, c.reaction, a.actor_id;
end $$;
comment on function tracking.mails_due is
  'The mails that go out with a batch of events, for a sink: the reaction, the event, the person and their address, '
  'the type of the mail and what it is told.';
revoke execute on function tracking.mails_due from public;
grant execute on function tracking.mails_due to service_role;

-- Says that mails were taken: [{"reaction", "scope_id", "event_id", "actor_id"}]. They are due no more.
create function tracking.mails_sent(sink text, mails jsonb)
  returns void
  language plpgsql volatile security definer -- the service role may run it, and claims nothing by hand
  set search_path = pg_catalog, pg_temp
as $$
begin
  update tracking.mail_claims as c
  set    due = array(select d.actor_id from unnest(c.due) as d (actor_id) where d.actor_id <> all (s.actor_ids))
  from   (
    select m.reaction, m.scope_id, m.event_id, array_agg(m.actor_id) as actor_ids
    from   jsonb_to_recordset(mails_sent.mails) as m (reaction text, scope_id uuid, event_id uuid, actor_id uuid)
    group  by 1, 2, 3
  ) as s
  where  (c.reaction, c.scope_id, c.event_id) = (s.reaction, s.scope_id, s.event_id)
  and    c.sink = mails_sent.sink;
end $$;
comment on function tracking.mails_sent is 'Notes that mails were taken: nobody gets them again.';
revoke execute on function tracking.mails_sent from public;
grant execute on function tracking.mails_sent to service_role;

-- Somebody went through the onboarding of an app.
insert into tracking.reactions (name, event, mail, preference)
values ('onboarding-step-done', 'onboarding-step-done', 'app:updated', 'onboarding');

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
