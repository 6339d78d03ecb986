-- Who a pgTAP file speaks as. Loaded into the databases of the pgTAP tests alone.

create schema tests;
grant usage on schema tests to public;

-- Claims are believed where the login is the API's, and the tests' login is this one.
update tracking.settings set api_logins = array_append(api_logins, session_user);

-- Takes on a role until the end of the transaction, with the claims and headers of a request.
create function tests.become(role text, claims jsonb, headers jsonb default '{}')
  returns void
  language plpgsql volatile
  set search_path = ''
as $$
begin
  perform set_config('request.jwt.claims', claims::text, true);
  perform set_config('request.headers', headers::text, true);
  perform set_config('role', become.role, true);
end $$;

create function tests.person(email text)
  returns uuid
  language plpgsql stable security definer -- clients may not read auth.users
  set search_path = ''
as $$
declare
  v_id uuid;
begin
  select u.id into strict v_id from auth.users as u where u.email = person.email;
  return v_id;
end $$;

-- Speaks as somebody who signed in.
create function tests.sign_in(email text)
  returns void
  language plpgsql volatile
  set search_path = ''
as $$
begin
  perform tests.become('authenticated', jsonb_build_object(
    'role', 'authenticated', 'sub', tests.person(sign_in.email), 'email', sign_in.email));
end $$;

-- Speaks as a program with an API key.
create function tests.use_key(key text)
  returns void
  language plpgsql volatile
  set search_path = ''
as $$
begin
  perform tests.become('anon', '{"role": "anon"}', jsonb_build_object('x-api-key', use_key.key));
end $$;

-- Speaks as the service role.
create function tests.use_service()
  returns void
  language plpgsql volatile
  set search_path = ''
as $$
begin
  perform tests.become('service_role', '{"role": "service_role"}');
end $$;

-- Speaks as somebody with the publishable key alone.
create function tests.sign_out()
  returns void
  language plpgsql volatile
  set search_path = ''
as $$
begin
  perform tests.become('anon', '{"role": "anon"}');
end $$;

-- Speaks as anybody, in a word: an email, an API key, 'service', 'nobody', or 'owner' (of the database).
create function tests.speak_as(caller text)
  returns void
  language plpgsql volatile
  set search_path = ''
as $$
begin
  case
    when caller like '%@%' then perform tests.sign_in(caller);
    when caller = 'service' then perform tests.use_service();
    when caller = 'nobody' then perform tests.sign_out();
    when caller = 'owner' then perform tests.become('none', '{}');
    else perform tests.use_key(caller);
  end case;
end $$;

-- What a query answers somebody: its one value as text, or the SQLSTATE and message it was refused with.
-- Afterwards the session speaks for itself again.
create function tests.outcome(caller text, query text)
  returns text
  language plpgsql volatile
  set search_path = public, extensions
as $$
declare
  v_outcome text;
begin
  perform tests.speak_as(caller);
  begin
    execute query into v_outcome;
  exception when others then
    v_outcome := SQLSTATE || ' ' || SQLERRM;
  end;
  perform tests.speak_as('owner');
  return v_outcome;
end $$;

-- Writes to the log directly: the columns named, and those that every row must have.
create function tests.insert_event(named jsonb)
  returns text
  language plpgsql volatile
  set search_path = public, extensions
as $$
declare
  v_row     jsonb := '{"event": "Inserted", "occurred_at": "2025-03-05 09:30:00.123+00", "event_id": "019565a3-fa3b-7000-8000-000000000001"}' || named;
  v_columns text := (select string_agg(quote_ident(k), ', ') from jsonb_object_keys(v_row) as k);
begin
  execute format('insert into events (%1$s) select %1$s from jsonb_populate_record(null::events, $1)', v_columns) using v_row;
  return 'inserted';
end $$;
