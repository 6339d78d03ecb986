import type { SupabaseClient } from '@supabase/supabase-js'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { runFile } from '../src/database.ts'
import { people, uuidV7 } from './demo.ts'
import { createWorld, type World } from './world.ts'

// A project with accounts, members and products of its own runs the pipeline on them: it replaces the functions
// in seam.sql, and nothing else. Here our own tables are gone altogether, so that nothing can still ask them.

const hers = '00000000-0000-8000-8000-000000000007' // account 7
const theirs = '00000000-0000-8000-8000-00000000002a' // account 42
const widgetKey = 'as_local_demo_app' // its row in api_keys is 20000000-…-2, owned by Ada

let world: World
let ada: SupabaseClient // owner of account 7
let bob: SupabaseClient // guest of account 7
let cyd: SupabaseClient // guest of the product widget of account 7, and of nothing else
let eve: SupabaseClient // owner of account 42
let nik: SupabaseClient // owner of account 7, but blocked

beforeAll(async () => {
  world = await createWorld()
  await world.sql.unsafe(`
    create schema crm;
    create table crm.people (auth_id uuid primary key, blocked boolean not null default false);
    create table crm.accounts (account_no bigint primary key, title text not null);
    create table crm.products (sku text primary key, account_no bigint not null references crm.accounts);
    create table crm.members (member uuid, account_no bigint references crm.accounts, sku text references crm.products, rank text);

    insert into crm.people (auth_id, blocked) select id, id = '${people.nik}' from auth.users;
    insert into crm.accounts values (7, 'Umbrella'), (42, 'Rival');
    insert into crm.products values ('widget', 7), ('gadget', 7), ('rival-widget', 42);
    insert into crm.members values
      ('${people.ada}', 7, null, 'owner'), ('${people.bob}', 7, null, 'guest'), ('${people.cyd}', 7, 'widget', 'guest'),
      ('${people.eve}', 42, null, 'owner'), ('${people.nik}', 7, null, 'owner'),
      ('20000000-0000-4000-8000-000000000002', 7, 'widget', 'owner');
  `).simple()
  await runFile(world.sql, 'tests/seam.sql')
  await world.sql`drop table tracking.role_bindings, tracking.role_permissions, tracking.roles, public.apps, public.orgs cascade`
  ada = await world.signIn('ada@acme.test')
  bob = await world.signIn('bob@acme.test')
  cyd = await world.signIn('cyd@acme.test')
  eve = await world.signIn('eve@evil.test')
  nik = await world.signIn('nik@nowhere.test')
})
afterAll(() => world.close())
beforeEach(() => world.sql.unsafe('delete from events; delete from build_requests').simple())

describe('sinks', () => {
  test('are told an account\'s title, a product\'s name, and its owners but the blocked one', async () => {
    const [row] = await world.sql`
      select org.name(${hers}) as org, org.name(${people.ada}) as nobody, app.name('widget') as app,
             (select json_agg(a) from org.admins(${hers}) as a) as admins`
    expect(row).toEqual({
      org: 'Umbrella', nobody: null, app: 'Widget', admins: [{ actor_id: people.ada, email: 'ada@acme.test' }] })
  })
})

describe('track_event', () => {
  test('attaches an account to its member\'s event', async () => {
    expect(await track(bob, { event: 'Looked', org_id: hers })).toEqual('ok')
    expect(await log()).toEqual([{ event: 'Looked', actor_id: people.bob, org_id: hers, app_id: null, source: 'client' }])
  })

  test('finds the account by its product, for who may read the product alone', async () => {
    expect(await track(cyd, { event: 'Used', tags: { app_id: 'widget' } })).toEqual('ok')
    expect(await log()).toEqual([{ event: 'Used', actor_id: people.cyd, org_id: hers, app_id: 'widget', source: 'client' }])
  })

  test('takes an account in user_id from a version 1 client', async () => {
    expect(await track(ada, { event: 'Old', user_id: hers, tracking_version: 1 })).toEqual('ok')
    expect(await log()).toEqual([{ event: 'Old', actor_id: people.ada, org_id: hers, app_id: null, source: 'client' }])
  })

  test('knows an API key by its own membership', async () => {
    const key = world.withKey(widgetKey)
    expect(await track(key, { event: 'By key', tags: { app_id: 'widget' } })).toEqual('ok')
    expect(await track(key, { event: 'By key', org_id: hers })).toEqual('no_permission')
    expect(await log()).toEqual([{ event: 'By key', actor_id: people.ada, org_id: hers, app_id: 'widget', source: 'client' }])
  })

  test('lets the service role name any account that exists', async () => {
    expect(await track(world.service(), { event: 'Billed', org_id: theirs })).toEqual('ok')
    expect(await track(world.service(), { event: 'Billed', org_id: theirs.replace('2a', '2b') })).toEqual('no_permission')
    expect(await log()).toEqual([{ event: 'Billed', actor_id: null, org_id: theirs, app_id: null, source: 'service' }])
  })

  test.each([
    ['an account to a member of another', () => eve, { org_id: hers }, 'no_permission'],
    ['an account to a member of one of its products', () => cyd, { org_id: hers }, 'no_permission'],
    ['a product under another account', () => ada, { org_id: hers, tags: { app_id: 'rival-widget' } }, 'no_permission'],
    ['an account that there is none of', () => ada, { org_id: hers.replace('07', '08') }, 'no_permission'],
    ['an id that is no account\'s', () => ada, { org_id: 'a0000000-0000-4000-8000-000000000001' }, 'no_permission'],
    ['anything to somebody blocked', () => nik, {}, 'unauthenticated'],
    ['anything to a key that is not known', () => world.withKey('as_unknown'), {}, 'invalid_api_key'],
    ['anything to nobody', () => world.anon(), {}, 'unauthenticated'],
  ])('refuses %s', async (_what, who, claim, refusal) => {
    expect(await track(who(), { event: 'Refused', ...claim })).toEqual(refusal)
    expect(await log()).toEqual([])
  })
})

test('track_events judges each event by the new tables', async () => {
  const { data } = await ada.rpc('track_events', { v2: [hers, theirs, undefined].map((org_id) => (
    { event: 'One of three', org_id, tracking_version: 2 })) })
  expect(data.results.map((r: { result: string, error?: Error }) => r.error?.message ?? r.result)).toEqual(['ok', 'no_permission', 'ok'])
  expect((await log()).map(({ org_id }) => org_id)).toEqual([hers, null])
})

test('old data may say an account\'s number, or its id', async () => {
  const old = { event: 'Old', timestamp: '2019-03-05T09:30:00Z' }
  const rows = [{ ...old, user_id: 7 }, { ...old, user_id: hers }, { ...old, user_id: people.bob, tags: { app_id: 'widget' } }, { ...old, user_id: 8 }]
    .map((row, n) => ({ ...row, event_id: `e-${n}` }))
  const [answer] = await world.sql`select tracking.record_events(${world.sql.json(rows)}, 'skip') as of`
  expect(answer!.of.results.map((r: { result: string, error?: Error }) => r.error?.message ?? r.result)).toEqual(['ok', 'ok', 'ok', 'user_anonymous'])
  const recorded = await world.sql`select actor_id, org_id, app_id from events order by actor_id nulls first`
  expect([...recorded]).toEqual([
    { actor_id: null, org_id: hers, app_id: null }, { actor_id: null, org_id: hers, app_id: null },
    { actor_id: people.bob, org_id: hers, app_id: 'widget' }])
})

describe('the table itself', () => {
  const row = (org_id: string, app_id?: string) => {
    const at = new Date()
    return { scope_id: org_id, occurred_at: at, event_id: uuidV7(at), org_id, app_id, event: 'Direct' }
  }

  test('takes a row for an account or a product of one\'s own, and says who wrote it', async () => {
    expect((await ada.from('events').insert(row(hers))).status).toBe(201)
    expect((await cyd.from('events').insert(row(hers, 'widget'))).status).toBe(201)
    expect(await log()).toEqual([
      { event: 'Direct', actor_id: people.ada, org_id: hers, app_id: null, source: 'client' },
      { event: 'Direct', actor_id: people.cyd, org_id: hers, app_id: 'widget', source: 'client' }])
  })

  test('refuses a row for another\'s', async () => {
    for (const insert of [
      eve.from('events').insert(row(hers)),
      cyd.from('events').insert(row(hers)),
      cyd.from('events').insert(row(hers, 'gadget')),
      ada.from('events').insert(row(hers, 'rival-widget')),
      nik.from('events').insert(row(hers)),
      ada.from('events').insert({ ...row(hers), actor_id: people.bob }),
    ]) expect((await insert).error?.code).toBe('42501')
    expect(await log()).toEqual([])
  })

  test('shows each what is theirs', async () => {
    await track(world.service(), { event: 'Account', org_id: hers })
    await track(ada, { event: 'Widget', tags: { app_id: 'widget' } })
    await track(ada, { event: 'Gadget', tags: { app_id: 'gadget' } })
    await track(eve, { event: 'Rival', tags: { app_id: 'rival-widget' } })
    await track(ada, { event: 'Personal' })
    const seen = async (client: SupabaseClient) => (await client.from('events').select('event')).data?.map(({ event }) => event).sort()
    expect(await seen(ada)).toEqual(['Account', 'Gadget', 'Personal', 'Widget'])
    expect(await seen(bob)).toEqual(['Account', 'Gadget', 'Widget'])
    expect(await seen(cyd)).toEqual(['Widget'])
    expect(await seen(world.withKey(widgetKey))).toEqual(['Widget'])
    expect(await seen(eve)).toEqual(['Rival'])
    expect(await seen(nik)).toEqual([])
    expect(await seen(world.anon())).toEqual([])
  })
})

describe('builds', () => {
  const request = (client: SupabaseClient, app_id: string) => client.rpc('request_build', { app_id, platform: 'ios' }).single<{ id: string }>()

  test('emit their events for the account of the product and who asked', async () => {
    const { data: build } = await request(ada, 'widget')
    for (const status of ['running', 'succeeded']) {
      await world.service().from('build_requests').update({ status }).eq('id', build!.id)
    }
    expect(await log()).toEqual(['Build Requested', 'Build Started', 'Build Succeeded'].map((event) => (
      { event, actor_id: people.ada, org_id: hers, app_id: 'widget', source: 'trigger' })))
  })

  test('are asked for only by who may build the product, and seen by who may read it', async () => {
    expect((await request(world.withKey(widgetKey), 'widget')).error).toBeNull()
    expect((await ada.from('build_requests').insert({ app_id: 'gadget', platform: 'ios' })).error).toBeNull()
    for (const refused of [request(bob, 'widget'), request(cyd, 'widget'), request(eve, 'widget'), request(ada, 'rival-widget'),
      request(world.withKey(widgetKey), 'gadget')]) expect((await refused).error?.message).toBe('no_permission')
    expect((await nik.from('build_requests').insert({ app_id: 'widget', platform: 'ios' })).error?.code).toBe('42501')
    expect((await request(nik, 'widget')).error?.message).toBe('unauthenticated')

    const seen = async (client: SupabaseClient) => (await client.from('build_requests').select('app_id')).data?.map(({ app_id }) => app_id).sort()
    expect(await seen(bob)).toEqual(['gadget', 'widget'])
    expect(await seen(cyd)).toEqual(['widget'])
    expect(await seen(eve)).toEqual([])
    expect(await seen(nik)).toEqual([])
  })
})

/** Tracks a version 2 event, and answers `ok` or the error's name. */
async function track(client: SupabaseClient, payload: object): Promise<string> {
  const { data, error } = await client.rpc('track_event', { v2: { tracking_version: 2, ...payload } })
  return error?.message ?? data.status
}

async function log(): Promise<{ org_id: string | null }[]> {
  return [...await world.sql<{ org_id: string | null }[]>`select event, actor_id, org_id, app_id, source from events order by event_id`]
}
