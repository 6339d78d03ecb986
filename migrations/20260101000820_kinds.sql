-- migrate:up

-- Chapter 8.2: what there is to ask about.
--
-- Whoever puts a question together, in the dashboard or on the command line, has to choose events by their names. And
-- whoever looks at answers wants to see what comes in: analysts may follow the log, as everybody may follow their part.


create type analytics.event_kind as (
  event text, channel text, surface text, events bigint, actors bigint, orgs bigint, first_seen timestamptz, last_seen timestamptz);
comment on type analytics.event_kind is 'A kind of event: how often it was seen, and by how many.';
comment on column analytics.event_kind.events is 'How often it was seen.';
comment on column analytics.event_kind.surface is 'Where it happens; null for an event of no surface.';
comment on column analytics.event_kind.actors is 'How many persons did it.';
comment on column analytics.event_kind.orgs is 'For how many organizations it was done.';

create function analytics.kinds(
  org uuid default null, app text default null, since timestamptz default null, until timestamptz default null, tags jsonb default '{}')
  returns setof analytics.event_kind
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
  set random_page_cost = 1.1
as $$
begin
  perform tracking.check_filters(since, until, tags);
  return query execute format(
    $query$
    with seen as (
      select h.event, h.channel, h.surface, h.actor_id, h.org_id, sum(h.events) as events,
             min(h.first_at) as first_at, max(h.last_at) as last_at, grouping(h.actor_id) = 0 as is_actor
      from   (%s) as h
      group  by grouping sets ((h.event, h.channel, h.surface, h.actor_id), (h.event, h.channel, h.surface, h.org_id))
    )
    select s.event, s.channel, s.surface, sum(s.events) filter (where s.is_actor)::bigint, count(s.actor_id), count(s.org_id),
           min(s.first_at), max(s.last_at)
    from   seen as s
    group  by s.event, s.channel, s.surface
    order  by 4 desc, s.event collate "C", s.channel collate "C"
    $query$,
    tracking.hours_query(org, app, since, until, tags));
end $$;
comment on function analytics.kinds is
  'Which kinds of events there were, how often, by how many persons, and for how many organizations; the most frequent first. '
  'Errors: invalid_range, invalid_tags (22023).';
revoke execute on function analytics.kinds from public;
grant execute on function analytics.kinds to anon, authenticated, service_role, analyst;

grant execute on function public.read_events, tracking.next_events, tracking.current_epoch, tracking.current_snapshot, tracking.raise_error to analyst;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
