-- migrate:up

-- Chapter 2: identity.
--
-- Organizations own apps; people and API keys act. Who is calling follows from the credentials alone: a
-- JWT's subject, or the owner of an API key. tracking.actor() is the first function of the seam: a
-- project with its own tables of people and keys replaces it and keeps the rest.

create table public.orgs (
  id         uuid        primary key default gen_random_uuid(),
  name       text        not null,
  created_at timestamptz not null default now(),
  constraint org_name_is_not_blank check (name ~ '\S')
);
comment on table public.orgs is 'The organizations that events are grouped by.';
comment on column public.orgs.id is 'What clients send as org_id.';

create table public.apps (
  app_id     text        primary key,
  name       text        not null,
  owner_org  uuid        not null references public.orgs (id) on delete cascade,
  created_at timestamptz not null default now(),
  constraint app_id_is_not_blank check (app_id ~ '\S'),
  constraint app_id_is_at_most_200_characters check (length(app_id) <= 200),
  constraint app_name_is_not_blank check (name ~ '\S')
);
create index apps_owner_org on public.apps (owner_org);
comment on table public.apps is 'The apps of the organizations.';
comment on column public.apps.app_id is 'What clients send as tags.app_id, such as com.acme.app: up to 200 characters.';
comment on column public.apps.owner_org is 'The organization that events of the app are grouped by.';

create table public.api_keys (
  id           uuid        primary key default gen_random_uuid(),
  owner_id     uuid        not null,
  name         text        not null,
  prefix       text        not null,
  key_hash     bytea       not null,
  created_at   timestamptz not null default now(),
  expires_at   timestamptz,
  revoked_at   timestamptz,
  last_used_at timestamptz,
  constraint key_hash_is_unique unique (key_hash),
  constraint key_hash_is_a_sha256 check (octet_length(key_hash) = 32),
  constraint key_name_is_not_blank check (name ~ '\S')
);
create index api_keys_owner_id on public.api_keys (owner_id);
comment on table public.api_keys is 'API keys, by hash; the plain key is shown once, by create_api_key.';
comment on column public.api_keys.owner_id is 'The person who acts when the key is used: the actor of its events.';
comment on column public.api_keys.prefix is 'The first characters of the key, to tell keys apart.';
comment on column public.api_keys.key_hash is 'SHA-256 of the plain key.';
comment on column public.api_keys.expires_at is 'From then on the key is refused; null: never.';
comment on column public.api_keys.revoked_at is 'Since when the key is refused; null: it is not revoked.';
comment on column public.api_keys.last_used_at is 'When the key last sent an event, to the minute.';

alter table public.orgs enable row level security;
alter table public.apps enable row level security;
alter table public.api_keys enable row level security;
revoke all on public.orgs, public.apps, public.api_keys from anon, authenticated, service_role;
grant select on public.orgs, public.apps to anon, authenticated;
grant select (id, owner_id, name, prefix, created_at, expires_at, revoked_at, last_used_at)
  on public.api_keys to anon, authenticated;
grant select, insert, update, delete on public.orgs, public.apps, public.api_keys to service_role;


create trigger orgs_are_not_truncated before truncate on public.orgs
  for each statement execute function tracking.refuse_truncate();
create trigger apps_are_not_truncated before truncate on public.apps
  for each statement execute function tracking.refuse_truncate();
create trigger api_keys_are_not_truncated before truncate on public.api_keys
  for each statement execute function tracking.refuse_truncate();

-- Who is calling ------------------------------------------------------------------------------------

-- Says whether the caller is the service role, or a database role that has its rights (the owner of the
-- tables, a superuser). The setting "role" is the role the session took, also inside security definer
-- functions, where current_user is their owner.
create function tracking.is_service()
  returns boolean
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return pg_has_role(coalesce(nullif(current_setting('role', true), 'none'), session_user), 'service_role', 'usage');
end $$;
comment on function tracking.is_service is 'True where the caller has the rights of the service role.';
revoke execute on function tracking.is_service from public;
grant execute on function tracking.is_service to anon, authenticated, service_role;

-- Claims and headers are session settings, and anyone with SQL can write those: they are believed only
-- where the login is the API's, or another that the settings name.
create function tracking.is_api_login()
  returns boolean
  language plpgsql stable security definer -- clients may not read the settings
  set search_path = pg_catalog, pg_temp
as $$
begin
  return session_user = 'authenticator'
      or exists (select from tracking.settings as s where session_user = any (s.api_logins));
end $$;
comment on function tracking.is_api_login is 'True where the session''s login may speak for others: the Data API''s.';
revoke execute on function tracking.is_api_login from public;

-- The person a JWT was issued to. PostgREST has verified the token. (One expression, here and in the other
-- functions that every event goes through: plpgsql prepares each one anew in each transaction.)
create function tracking.jwt_subject()
  returns uuid
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case
    when nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
     and (session_user = 'authenticator' or tracking.is_api_login())
    then current_setting('request.jwt.claims')::jsonb ->> 'sub'
  end;
end $$;
comment on function tracking.jwt_subject is 'The subject of the request''s JWT, or null.';
revoke execute on function tracking.jwt_subject from public;

-- The plain API key in the request's headers, good or bad.
create function tracking.sent_api_key()
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_headers jsonb := nullif(current_setting('request.headers', true), '')::jsonb;
begin
  return coalesce(nullif(v_headers ->> 'x-api-key', ''), nullif(v_headers ->> 'capgkey', ''));
end $$;
comment on function tracking.sent_api_key is 'The API key in the request''s header x-api-key, or capgkey; null where there is none.';
revoke execute on function tracking.sent_api_key from public;

-- The valid API key of the request. A JWT wins over a key, and the service role needs none.
create function tracking.current_api_key()
  returns public.api_keys
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_sent text := tracking.sent_api_key();
  v_key  public.api_keys;
begin
  if v_sent is not null and tracking.is_api_login() and tracking.jwt_subject() is null and not tracking.is_service() then
    select k.* into v_key
    from   public.api_keys as k
    where  k.key_hash = sha256(convert_to(v_sent, 'UTF8'))
    and    k.revoked_at is null
    and    (k.expires_at is null or k.expires_at > now());
  end if;
  return v_key;
end $$;
comment on function tracking.current_api_key is 'The API key behind the request, where it is known, not revoked and not expired; else nulls.';
revoke execute on function tracking.current_api_key from public;

-- The seam: who acts. Replace it to take people from elsewhere; it must answer from credentials alone.
create function tracking.actor()
  returns uuid
  language plpgsql stable security definer -- looks keys up by their hash, which clients may not read
  set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(tracking.jwt_subject(), (tracking.current_api_key()).owner_id);
end $$;
comment on function tracking.actor is 'The person behind the request: the JWT''s subject, or the API key''s owner; null where there is neither.';
revoke execute on function tracking.actor from public;
grant execute on function tracking.actor to anon, authenticated, service_role;

create function tracking.api_key()
  returns uuid
  language plpgsql stable security definer -- looks keys up by their hash, which clients may not read
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (tracking.current_api_key()).id;
end $$;
comment on function tracking.api_key is 'The id of the API key behind the request, or null.';
revoke execute on function tracking.api_key from public;
grant execute on function tracking.api_key to anon, authenticated, service_role;

-- Raises what keeps a caller out who is nobody.
create function tracking.refuse_nobody()
  returns void
  language plpgsql stable security definer -- called by clients' own functions too, which may not see the key
  set search_path = pg_catalog, pg_temp
as $$
begin
  if tracking.sent_api_key() is not null then
    perform tracking.raise_error('invalid_api_key', 'The API key that was sent is not valid.');
  end if;
  perform tracking.raise_error('unauthenticated', 'Nobody is signed in, and no API key was sent.');
end $$;
comment on function tracking.refuse_nobody is 'Raises invalid_api_key where a key was sent, else unauthenticated.';
revoke execute on function tracking.refuse_nobody from public;
grant execute on function tracking.refuse_nobody to anon, authenticated, service_role;

-- Where a row that is written now comes from.
create function tracking.source()
  returns text
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return case when tracking.is_service() then 'service' else 'client' end;
end $$;
comment on function tracking.source is '"service" for the service role, else "client".';
revoke execute on function tracking.source from public;
grant execute on function tracking.source to anon, authenticated, service_role;


-- The seam: whom old data means by an id, when it is imported: a UUID that Supabase's Auth knows, or an address for
-- mail. Replace it to have it know people of elsewhere, or by other ids. It is for the service role alone.
create function tracking.person_known_as(id text)
  returns uuid
  language plpgsql stable strict security definer -- the service role may run it, and reads none of Auth's tables
  set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass('auth.users') is null then
    return null;
  elsif tracking.is_uuid(id) then
    return (select u.id from auth.users as u where u.id = person_known_as.id::uuid);
  elsif id like '%@%' then
    return (
      select u.id
      from   auth.users as u
      where  u.email = lower(person_known_as.id)
      and    u.is_sso_user = false -- of the others several may have the same address
      and    u.deleted_at is null
    );
  end if;
  return null;
end $$;
comment on function tracking.person_known_as is
  'The person that an id of old data means, a UUID or an address for mail; null where it means none.';
revoke execute on function tracking.person_known_as from public;
grant execute on function tracking.person_known_as to service_role;


-- API keys ------------------------------------------------------------------------------------------

-- Creates a key for an org or an app that the caller manages, and shows it this once. Only a person may:
-- a leaked key must not be able to make others that outlive it.
create function tracking.create_api_key(name text, role text, org_id uuid, app_id text, expires_at timestamptz)
  returns jsonb
  language plpgsql volatile security definer -- writes keys and role bindings, which clients may not
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_actor uuid := tracking.actor();
  v_org   uuid := coalesce(create_api_key.org_id, app.owner_org(create_api_key.app_id));
  v_key   text := 'as_' || encode(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'hex');
  v_row   public.api_keys;
begin
  if v_actor is null then
    perform tracking.refuse_nobody();
  elsif coalesce(create_api_key.name, '') !~ '\S' then
    perform tracking.raise_error('invalid_payload', 'An API key needs a name.', 'Name the key for where it will be used.');
  elsif num_nonnulls(create_api_key.org_id, create_api_key.app_id) <> 1 then
    perform tracking.raise_error('invalid_payload', 'An API key is for one organization or for one app.', 'Send either org_id or app_id.');
  elsif not exists (select from tracking.roles as r where r.role = create_api_key.role) then
    perform tracking.raise_error('invalid_payload', format('There is no role %L.', create_api_key.role), 'The roles are in tracking.roles: admin, developer, viewer.');
  elsif create_api_key.expires_at <= now() then
    perform tracking.raise_error('invalid_payload', 'expires_at has passed.', 'Send a time in the future, or none.');
  elsif tracking.api_key() is not null or not coalesce(org.manage(v_org), false) then
    perform tracking.raise_error('no_permission', 'Only a signed-in person who manages the organization may create keys for it.');
  end if;

  insert into public.api_keys (owner_id, name, prefix, key_hash, expires_at)
  values (v_actor, create_api_key.name, left(v_key, 11), sha256(convert_to(v_key, 'UTF8')), create_api_key.expires_at)
  returning * into v_row;
  insert into tracking.role_bindings (principal_id, role, org_id, app_id)
  values (v_row.id, create_api_key.role, create_api_key.org_id, create_api_key.app_id);
  return jsonb_build_object('id', v_row.id, 'key', v_key, 'name', v_row.name, 'prefix', v_row.prefix, 'expires_at', v_row.expires_at);
end $$;
comment on function tracking.create_api_key is 'Behind public.create_api_key.';
revoke execute on function tracking.create_api_key from public;
grant execute on function tracking.create_api_key to anon, authenticated;

create function public.create_api_key(
  name text, role text, org_id uuid default null, app_id text default null, expires_at timestamptz default null)
  returns jsonb
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.create_api_key(name, role, org_id, app_id, expires_at);
end $$;
comment on function public.create_api_key is
  'Creates an API key with a role in one org or on one app, owned by the caller, who must manage the org. Answers {id, key, name, prefix, expires_at}; the key is shown this once. Errors: unauthenticated, invalid_api_key, no_permission, invalid_payload.';
revoke execute on function public.create_api_key from public, anon, authenticated, service_role;
grant execute on function public.create_api_key to anon, authenticated;

-- Notes when a key was last used, to the minute: at most one write a minute, and none that waits.
create function tracking.touch_api_key(id uuid)
  returns void
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  update public.api_keys as k
  set    last_used_at = now()
  where  k.id in (
    select u.id
    from   public.api_keys as u
    where  u.id = touch_api_key.id
    and    (u.last_used_at is null or u.last_used_at < now() - interval '1 minute')
    for    no key update skip locked
  );
end $$;
comment on function tracking.touch_api_key is 'Notes that an API key is in use.';
revoke execute on function tracking.touch_api_key from public;

-- Revokes a key: its owner may, the key itself may, and whoever manages the org it is for. Doing it twice
-- changes nothing.
create function tracking.revoke_api_key(id uuid)
  returns jsonb
  language plpgsql volatile security definer -- writes keys, which clients may not
  set search_path = pg_catalog, pg_temp
as $$
declare
  v_revoked_at timestamptz;
begin
  if tracking.actor() is null then
    perform tracking.refuse_nobody();
  end if;
  update public.api_keys as k
  set    revoked_at = coalesce(k.revoked_at, now())
  where  k.id = revoke_api_key.id
  and    (coalesce(k.id = tracking.api_key(), k.owner_id = tracking.actor()) or exists (
           select
           from   tracking.role_bindings as b
           where  b.principal_id = k.id
           and    org.manage(coalesce(b.org_id, app.owner_org(b.app_id)))))
  returning k.revoked_at into v_revoked_at;
  if v_revoked_at is null then
    perform tracking.raise_error('no_permission', 'There is no such key, or it is not yours to revoke.');
  end if;
  return jsonb_build_object('id', revoke_api_key.id, 'revoked_at', v_revoked_at);
end $$;
comment on function tracking.revoke_api_key is 'Behind public.revoke_api_key.';
revoke execute on function tracking.revoke_api_key from public;
grant execute on function tracking.revoke_api_key to anon, authenticated;

create function public.revoke_api_key(id uuid)
  returns jsonb
  language plpgsql volatile
  set search_path = pg_catalog, pg_temp
as $$
begin
  return tracking.revoke_api_key(id);
end $$;
comment on function public.revoke_api_key is
  'Revokes an API key, at once and for good. Its owner may, and who manages its org. Answers {id, revoked_at}. Errors: unauthenticated, invalid_api_key, no_permission.';
revoke execute on function public.revoke_api_key from public, anon, authenticated, service_role;
grant execute on function public.revoke_api_key to anon, authenticated;

-- migrate:down
-- Chapters are not undone: drop the schemas instead.
