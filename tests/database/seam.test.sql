-- The seam: a project with tables of its own for people, organizations and apps replaces the functions that
-- the pipeline asks, and everything else works unchanged. Here the default tables are even gone.
begin;
select plan(16);

create schema crm;
create table crm.accounts (number uuid primary key, title text);
create table crm.products (sku text primary key, account uuid);
create table crm.members (person uuid, account uuid, may_write boolean);
insert into crm.accounts values ('c0000000-0000-4000-8000-000000000001', 'Initech'), ('c0000000-0000-4000-8000-000000000002', 'Initrode');
insert into crm.products values ('stapler', 'c0000000-0000-4000-8000-000000000001'), ('printer', 'c0000000-0000-4000-8000-000000000002');
insert into crm.members values
  ('c1000000-0000-4000-8000-000000000001', 'c0000000-0000-4000-8000-000000000001', true),
  ('c1000000-0000-4000-8000-000000000002', 'c0000000-0000-4000-8000-000000000001', false);

create or replace function tracking.actor() returns uuid language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return current_setting('request.jwt.claims', true)::jsonb ->> 'member';
end $$;
create or replace function org.readable() returns setof uuid language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select m.account from crm.members as m where m.person = tracking.actor();
end $$;
create or replace function org.read(org_id uuid) returns boolean language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return read.org_id in (select org.readable());
end $$;
create or replace function app.readable() returns table (app_id text, owner_org uuid) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select p.sku, p.account from crm.products as p where p.account in (select org.readable());
end $$;
create or replace function app.read(app_id text) returns boolean language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return exists (select from app.readable() as r where r.app_id = read.app_id);
end $$;
create or replace function app.owner_org(app_id text) returns uuid language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return (select p.account from crm.products as p where p.sku = owner_org.app_id);
end $$;
create or replace function app.build(app_id text) returns boolean language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
  return exists (
    select from crm.products as p join crm.members as m using (account)
    where p.sku = build.app_id and m.person = tracking.actor() and m.may_write);
end $$;
drop table public.orgs, public.apps cascade;

select tests.become('authenticated', '{"member": "c1000000-0000-4000-8000-000000000001"}');
select is(
  track_event('{"event": "Stapled", "tracking_version": 2, "event_id": "019565a3-fa3b-7000-8000-000000000001", "org_id": "c0000000-0000-4000-8000-000000000001"}'),
  '{"status": "ok", "event_id": "019565a3-fa3b-7000-8000-000000000001"}', 'a member speaks for their account');
select is(
  track_event('{"event": "Jammed", "tracking_version": 2, "event_id": "019565a3-fa3b-7000-8000-000000000002", "tags": {"app_id": "stapler"}}') ->> 'status',
  'ok', 'an event of a product is grouped by its account');
select is(
  track_event('{"event": "Stapled", "event_id": "019565a3-fa3b-7000-8000-000000000003", "user_id": "c0000000-0000-4000-8000-000000000001"}') ->> 'status',
  'ok', 'version 1 has the account in user_id');
select throws_ok(
  $$ select track_event('{"event": "Peek", "tracking_version": 2, "org_id": "c0000000-0000-4000-8000-000000000002"}') $$,
  'PT403', 'no_permission', 'nobody speaks for another account');
select throws_ok(
  $$ select track_event('{"event": "Peek", "tracking_version": 2, "org_id": "c0000000-0000-4000-8000-000000000001", "tags": {"app_id": "printer"}}') $$,
  'PT403', 'no_permission', 'nor for another''s product');
select is(
  track_events('[{"event": "A", "tracking_version": 2, "tags": {"app_id": "stapler"}}, {"event": "B", "tracking_version": 2, "org_id": "c0000000-0000-4000-8000-000000000002"}]') - 'results',
  '{"accepted": 1, "duplicates": 0, "dropped": 1}', 'a batch is judged alike');
select lives_ok(
  $$ insert into events (scope_id, occurred_at, event_id, org_id, app_id, event)
     values ('c0000000-0000-4000-8000-000000000001', '2025-03-05 09:30:00.123+00', '019565a3-fa3b-7000-8000-000000000004',
             'c0000000-0000-4000-8000-000000000001', 'stapler', 'Inserted') $$,
  'a direct insert is let in by the same questions');
select throws_ok(
  $$ insert into events (scope_id, occurred_at, event_id, org_id, event)
     values ('c0000000-0000-4000-8000-000000000002', '2025-03-05 09:30:00.123+00', '019565a3-fa3b-7000-8000-000000000005',
             'c0000000-0000-4000-8000-000000000002', 'Forged') $$,
  '42501', 'new row violates row-level security policy for table "events"', 'and kept out by them');
select is((request_build('stapler', 'ios')).owner_org, 'c0000000-0000-4000-8000-000000000001', 'who may write asks for builds');
select is(
  track_event('{"event": "Hello", "tracking_version": 2, "notifyConsole": true, "org_id": "c0000000-0000-4000-8000-000000000001"}') ->> 'status',
  'ok', 'the account''s console hears its broadcasts');
select is((select count(*) from events), 6::bigint, 'the account''s members read its events');

select tests.become('authenticated', '{"member": "c1000000-0000-4000-8000-000000000002"}');
select is((select count(*) from events), 6::bigint, 'all of them');
select throws_ok(
  $$ select request_build('stapler', 'ios') $$,
  'PT403', 'no_permission', 'who may not write asks for no builds');

select tests.become('authenticated', '{"member": "c1000000-0000-4000-8000-000000000003"}');
select is((select count(*) from events), 0::bigint, 'a stranger reads none');

reset role;
select bag_eq(
  $$ select event, org_id, app_id from events where actor_id = 'c1000000-0000-4000-8000-000000000001' $$,
  $$ select t.event, 'c0000000-0000-4000-8000-000000000001'::uuid, t.app_id
     from   (values
       ('Stapled', null), ('Jammed', 'stapler'), ('Stapled', null), ('A', 'stapler'), ('Inserted', 'stapler'), ('Build Requested', 'stapler')
     ) as t (event, app_id) $$,
  'every event says which member did it, for which account');
select is((select topic from realtime.messages), 'cli-events:org:c0000000-0000-4000-8000-000000000001', 'and the broadcast went to the account');

select * from finish();
rollback;
