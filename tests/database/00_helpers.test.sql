begin;
select plan(8);

select tests.sign_in('ada@acme.test');
select is(current_user, 'authenticated'::name, 'somebody who signs in speaks as authenticated');
select is(tracking.actor(), '10000000-0000-4000-8000-000000000001', 'and is the actor');
select is(auth.uid(), '10000000-0000-4000-8000-000000000001', 'also for Supabase''s own functions');

select tests.use_key('as_local_acme_admin');
select is(current_user, 'anon'::name, 'a program with a key speaks as anon');
select is(tracking.actor(), '10000000-0000-4000-8000-000000000001', 'and its owner is the actor');

select tests.use_service();
select is(current_user, 'service_role'::name, 'the service speaks as service_role');

select tests.sign_out();
select is(current_user, 'anon'::name, 'who signs out speaks as anon');
select is(tracking.actor(), null, 'and is nobody');

select * from finish();
rollback;
