-- migrate:up

-- Chapter 3: permissions.
--
-- Permissions are data: a role is a set of permissions, and a binding gives a role to a person or an API
-- key, in an org (and so on all of its apps) or on one app. An API key has bindings of its own and none
-- of its owner's.
--
-- The seam: the pipeline asks only app.read, app.owner_org and org.read, their set forms for policies,
-- and tracking.actor() (chapter 2); builds (chapter 6) ask app.build as well, and imports of old data
-- org.known_as and tracking.person_known_as. Replace their bodies with questions to your own tables and
-- everything else works unchanged.

create table tracking.roles (
  role        text primary key,
  description text not null
);
comment on table tracking.roles is 'The roles that can be bound to people and API keys.';
comment on column tracking.roles.description is 'What the role is for.';

create table tracking.role_permissions (
  role       text not null references tracking.roles (role) on update cascade on delete cascade,
  permission text not null,
  primary key (role, permission),
  constraint permission_is_subject_and_verb check (permission ~ '^(org|app)\.[a-z_]+$')
);
comment on table tracking.role_permissions is 'What each role may do.';
comment on column tracking.role_permissions.permission is 'Subject and verb, as in org.read.';

create table tracking.role_bindings (
  id           uuid primary key default gen_random_uuid(),
  principal_id uuid not null,
  role         text not null references tracking.roles (role) on update cascade,
  org_id       uuid references public.orgs (id) on delete cascade,
  app_id       text references public.apps (app_id) on update cascade on delete cascade,
  constraint binding_is_for_an_org_or_an_app check (num_nonnulls(org_id, app_id) = 1),
  constraint binding_is_given_once unique nulls not distinct (principal_id, org_id, app_id, role)
);
create index role_bindings_role on tracking.role_bindings (role);
create index role_bindings_org_id on tracking.role_bindings (org_id);
create index role_bindings_app_id on tracking.role_bindings (app_id);
comment on table tracking.role_bindings is 'Who has which role where.';
comment on column tracking.role_bindings.principal_id is 'A person (their user id) or an API key (its id).';
comment on column tracking.role_bindings.org_id is 'The role holds in this org and on all of its apps.';
comment on column tracking.role_bindings.app_id is 'The role holds on this app only.';

alter table tracking.roles enable row level security;
alter table tracking.role_permissions enable row level security;
alter table tracking.role_bindings enable row level security;

insert into tracking.roles (role, description) values
  ('admin',     'Runs the organization: its apps, keys and builds.'),
  ('developer', 'Works on apps and builds them.'),
  ('viewer',    'Looks, and changes nothing.');
insert into tracking.role_permissions (role, permission) values
  ('admin',     'org.read'),
  ('admin',     'org.manage'),
  ('admin',     'app.read'),
  ('admin',     'app.build'),
  ('admin',     'app.manage'),
  ('developer', 'org.read'),
  ('developer', 'app.read'),
  ('developer', 'app.build'),
  ('viewer',    'org.read'),
  ('viewer',    'app.read');


-- Asking the bindings -------------------------------------------------------------------------------

-- Whom bindings are looked up for: the person signed in, or the API key.
create function tracking.principal()
  returns uuid
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(tracking.jwt_subject(), (tracking.current_api_key()).id);
end $$;
comment on function tracking.principal is 'The holder of the caller''s role bindings: the person signed in, or the API key.';
revoke execute on function tracking.principal from public;

-- The service role may do anything with what exists; others, what a binding says.
create function tracking.allows_org(org_id uuid, permission text)
  returns boolean
  language plpgsql stable security definer -- clients may not read role bindings
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tracking.is_service() then
    return exists (select from public.orgs as o where o.id = allows_org.org_id);
  end if;
  return exists (
    select
    from   tracking.role_bindings as b
    join   tracking.role_permissions as p using (role)
    where  b.principal_id = (select tracking.principal())
    and    b.org_id = allows_org.org_id
    and    p.permission = allows_org.permission
  );
end $$;
comment on function tracking.allows_org is 'True where the caller has the permission in the org.';
revoke execute on function tracking.allows_org from public;

create function tracking.allows_app(app_id text, permission text)
  returns boolean
  language plpgsql stable security definer -- clients may not read role bindings
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tracking.is_service() then
    return exists (select from public.apps as a where a.app_id = allows_app.app_id);
  end if;
  return exists (
    select
    from   public.apps as a
    join   tracking.role_bindings as b on b.org_id = a.owner_org or b.app_id = a.app_id
    join   tracking.role_permissions as p using (role)
    where  a.app_id = allows_app.app_id
    and    b.principal_id = (select tracking.principal())
    and    p.permission = allows_app.permission
  );
end $$;
comment on function tracking.allows_app is 'True where the caller has the permission on the app.';
revoke execute on function tracking.allows_app from public;


-- The seam: one thing at a time ---------------------------------------------------------------------
-- Each is security definer, so that clients need no right to the functions and tables behind it.

create function app.read(app_id text)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.allows_app(app_id, 'app.read');
end $$;
comment on function app.read is 'True where the caller may read the app.';

create function app.build(app_id text)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.allows_app(app_id, 'app.build');
end $$;
comment on function app.build is 'True where the caller may have the app built.';

create function app.manage(app_id text)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.allows_app(app_id, 'app.manage');
end $$;
comment on function app.manage is 'True where the caller may change the app''s settings.';

create function org.read(org_id uuid)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.allows_org(org_id, 'org.read');
end $$;
comment on function org.read is 'True where the caller may read the organization.';

create function org.manage(org_id uuid)
  returns boolean
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.allows_org(org_id, 'org.manage');
end $$;
comment on function org.manage is 'True where the caller may manage the organization: its keys and settings.';

-- Says whose an app is, to anybody who asks: it is called only after app.read, or for a check against it.
create function app.owner_org(app_id text)
  returns uuid
  language plpgsql stable security definer -- the asker need not be able to read the app
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (select a.owner_org from public.apps as a where a.app_id = owner_org.app_id);
end $$;
comment on function app.owner_org is 'The organization that owns the app, or null where there is no such app.';

-- Says which organization old data means by an id, when it is imported. Replace it to have it know organizations by
-- ids that are no UUIDs. It is for the service role alone, for which org.read says whether there is such a one.
create function org.known_as(id text)
  returns uuid
  language plpgsql stable strict
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case when tracking.is_uuid(id) then case when org.read(id::uuid) then id::uuid end end;
end $$;
comment on function org.known_as is 'The organization that an id of old data means; null where it means none.';

revoke execute on function app.read, app.build, app.manage, app.owner_org, org.read, org.manage, org.known_as from public;
grant execute on function app.read, app.build, app.manage, org.read, org.manage to anon, authenticated, service_role;
grant execute on function app.owner_org, org.known_as to service_role;


-- The seam: everything at once, for policies --------------------------------------------------------
-- A policy that asks once a statement and not once a row stays fast on a million rows.

create function org.readable()
  returns setof uuid
  language plpgsql stable security definer -- clients may not read role bindings
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select distinct b.org_id
    from   tracking.role_bindings as b
    join   tracking.role_permissions as p using (role)
    where  b.principal_id = (select tracking.principal()) -- once, not for each role that is bound
    and    b.org_id is not null
    and    p.permission = 'org.read';
end $$;
comment on function org.readable is 'The organizations that the caller may read.';

create function app.readable()
  returns table (app_id text, owner_org uuid)
  language plpgsql stable security definer -- clients may not read role bindings
  set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select distinct a.app_id, a.owner_org
    from   tracking.role_bindings as b
    join   tracking.role_permissions as p using (role)
    join   public.apps as a on a.owner_org = b.org_id or a.app_id = b.app_id
    where  b.principal_id = (select tracking.principal()) -- once, not for each role that is bound
    and    p.permission = 'app.read';
end $$;
comment on function app.readable is 'The apps that the caller may read, each with the organization that owns it.';

revoke execute on function org.readable, app.readable from public;
grant execute on function org.readable, app.readable to anon, authenticated, service_role;

create policy "people read their own orgs" on public.orgs
  for select to anon, authenticated
  using (id = any (array(select org.readable())));

create policy "people read the apps they have a role on" on public.apps
  for select to anon, authenticated
  using (app_id = any (array(select r.app_id from app.readable() as r)));

create policy "people read their own keys" on public.api_keys
  for select to authenticated
  using (owner_id = (select tracking.actor()));

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
