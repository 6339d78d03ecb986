-- The demo world, for local use only: three organizations, five people (everybody's password is "password")
-- and four API keys.

-- People. bcrypt of "password"; the empty strings are what Supabase's Auth wants in these columns.
insert into auth.users (
  instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data,
  confirmation_token, recovery_token, email_change, email_change_token_new, created_at, updated_at)
select '00000000-0000-0000-0000-000000000000', p.id::uuid, 'authenticated', 'authenticated', p.email,
       '$2a$06$/ZmWGju1yKPv48VrR.mOROEgihmwKC8osC06XbBOs98PmNMKYI6Ia', now(),
       '{"provider": "email", "providers": ["email"]}', '{}', '', '', '', '', now(), now()
from (values
  ('10000000-0000-4000-8000-000000000001', 'ada@acme.test'),
  ('10000000-0000-4000-8000-000000000002', 'bob@acme.test'),
  ('10000000-0000-4000-8000-000000000003', 'cyd@acme.test'),
  ('10000000-0000-4000-8000-000000000004', 'eve@evil.test'),
  ('10000000-0000-4000-8000-000000000005', 'nik@nowhere.test')
) as p (id, email)
on conflict (id) do nothing;

insert into auth.identities (id, user_id, provider, provider_id, identity_data, last_sign_in_at, created_at, updated_at)
select u.id, u.id, 'email', u.id::text,
       jsonb_build_object('sub', u.id::text, 'email', u.email, 'email_verified', true, 'phone_verified', false),
       now(), now(), now()
from   auth.users as u
where  u.id::text like '10000000-0000-4000-8000-00000000000_'
on conflict do nothing;

insert into public.orgs (id, name) values
  ('a0000000-0000-4000-8000-000000000001', 'Acme'),
  ('a0000000-0000-4000-8000-000000000002', 'Evil'),
  ('6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11', 'Demo');

insert into public.apps (app_id, name, owner_org) values
  ('com.acme.app',  'Acme App',  'a0000000-0000-4000-8000-000000000001'),
  ('com.acme.beta', 'Acme Beta', 'a0000000-0000-4000-8000-000000000001'),
  ('com.evil.app',  'Evil App',  'a0000000-0000-4000-8000-000000000002'),
  ('com.demo.app',  'Demo App',  '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11');

-- Ada's API keys; the plain key is the name with as_local_ before it.
insert into public.api_keys (id, owner_id, name, prefix, key_hash, expires_at, revoked_at)
select k.id::uuid, '10000000-0000-4000-8000-000000000001', k.name, left('as_local_' || k.name, 11),
       sha256(convert_to('as_local_' || k.name, 'UTF8')), k.expires_at, k.revoked_at
from (values
  ('20000000-0000-4000-8000-000000000001', 'acme_admin', null::timestamptz, null::timestamptz),
  ('20000000-0000-4000-8000-000000000002', 'demo_app',   null,              null),
  ('20000000-0000-4000-8000-000000000003', 'revoked',    null,              now()),
  ('20000000-0000-4000-8000-000000000004', 'expired',    now(),             null)
) as k (id, name, expires_at, revoked_at);

insert into tracking.role_bindings (principal_id, role, org_id, app_id) values
  ('10000000-0000-4000-8000-000000000001', 'admin',     'a0000000-0000-4000-8000-000000000001', null),
  ('10000000-0000-4000-8000-000000000001', 'admin',     '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11', null),
  ('10000000-0000-4000-8000-000000000002', 'viewer',    'a0000000-0000-4000-8000-000000000001', null),
  ('10000000-0000-4000-8000-000000000003', 'viewer',    null, 'com.acme.app'),
  ('10000000-0000-4000-8000-000000000004', 'admin',     'a0000000-0000-4000-8000-000000000002', null),
  ('20000000-0000-4000-8000-000000000001', 'admin',     'a0000000-0000-4000-8000-000000000001', null),
  ('20000000-0000-4000-8000-000000000002', 'developer', null, 'com.demo.app'),
  ('20000000-0000-4000-8000-000000000003', 'admin',     'a0000000-0000-4000-8000-000000000001', null),
  ('20000000-0000-4000-8000-000000000004', 'admin',     'a0000000-0000-4000-8000-000000000001', null);
