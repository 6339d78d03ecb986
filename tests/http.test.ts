import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { publishableKey } from '../src/api.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { callerNamed, openClients, timeOf, withBoth, type Client } from './callers.ts'
import { apiKeys, apps, callers, seesApiKey, seesApp, seesEvent, seesOrg, type Caller } from './matrix-model.ts'
import { createWorld, type World } from './world.ts'

const everybody = callers.map((caller) => [caller.name, caller] as const)
const clientRoles = everybody.filter(([, { role }]) => role === 'anon' || role === 'authenticated')

let world: World
let clients: Map<Caller, Client>
const as = (name: string): Client => clients.get(callerNamed(name))!

beforeAll(async () => {
  world = await createWorld()
  clients = await openClients(world)
  await world.sql`select from tracking.push_event_types('{"Typed": {"tags": {"n": "integer"}}}', 'enforce')`
})
afterAll(() => world.close())

describe('an error', () => {
  beforeEach(() => world.sql`truncate events`)

  const hugeTags = { text: 'x'.repeat(33_000) }
  const errors: [message: string, caller: string, payload: object, details: string][] = [
    ['missing_event', 'ada', {}, 'The event has no name.'],
    ['invalid_payload', 'ada', { event: 'E', tags: [] }, 'tags is not an object.'],
    ['unsupported_tracking_version', 'ada', { event: 'E', tracking_version: 3 }, '\'3\' is not a tracking version.'],
    ['missing_org_id', 'the service role', { event: 'E', tracking_version: 2 },
      'An event of the service role needs a user_id, an org_id or an app.'],
    ['timestamp_invalid', 'ada', { event: 'E', timestamp: 'yesterday' }, 'timestamp is not an ISO 8601 time.'],
    ['timestamp_required', 'ada', { event: 'E', event_id: 'mine' }, 'The event_id is not a UUIDv7, and there is no timestamp.'],
    ['timestamp_mismatch', 'ada', { event: 'E', event_id: uuidV7(0), timestamp: '2026-01-01T00:00:00Z' },
      'timestamp and the time inside event_id differ by more than 1 ms.'],
    ['timestamp_in_future', 'ada', { event: 'E', timestamp: '2999-01-01T00:00:00Z' }, 'The event is more than 24 hours ahead of the server.'],
    ['timestamp_out_of_range', 'ada', { event: 'E', timestamp: '1969-12-31T23:59:59Z' }, 'The event is from before 1970.'],
    ['unauthenticated', 'the publishable key alone', { event: 'E' }, 'Nobody is signed in, and no API key was sent.'],
    ['invalid_api_key', 'the key revoked', { event: 'E' }, 'The API key that was sent is not valid.'],
    ['no_permission', 'eve', { event: 'E', tracking_version: 2, org_id: orgs.acme },
      `The caller may not read the organization ${orgs.acme}.`],
    ['Forbidden', 'eve', { event: 'E', tracking_version: 2, org_id: orgs.acme, notifyConsole: true },
      `The caller may not read the organization ${orgs.acme}.`],
    ['invalid_tags', 'ada', { event: 'Typed', tags: { n: '1' } }, 'The tag "n" of "Typed" is not an integer.'],
    ['payload_too_large', 'ada', { event: 'E', tags: hugeTags }, 'tags and nonPersonTags take more than 32 KB.'],
  ]

  test.each(errors)('%s is answered to %s with its status, code, message, details and hint', async (message, caller, v2, details) => {
    const { code, hint } = await errorNamed(message)
    const { status, error } = await as(caller).rpc('track_event', { v2 })
    expect({ status, ...error }).toEqual({ status: Number(code.slice(2)), code, message, details, hint })
    expect(await log()).toEqual([])
  })

  test('of one event in a batch is the same object, beside the others\' results', async () => {
    const [id, forbidden] = [uuidV7(), errors.find(([message]) => message === 'no_permission')!]
    const { code, hint } = await errorNamed('no_permission')
    const { status, data } = await as('eve').rpc('track_events', { v2: [forbidden[2], { event: 'Sound', event_id: id }] })
    expect({ status, data }).toEqual({ status: 200, data: {
      results: [
        { result: 'drop', error: { code, message: 'no_permission', details: forbidden[3], hint } },
        { result: 'ok', event_id: id },
      ],
      accepted: 1, duplicates: 0, dropped: 1 } })
  })

  test('rate_limited is answered with 429 from the event on that is too many', async () => {
    await world.sql`update tracking.settings set events_per_minute = 2`
    const send = () => as('nik').rpc('track_event', { v2: { event: 'E' } })
    const statuses = [(await send()).status, (await send()).status, (await send()).status]
    await world.sql`update tracking.settings set events_per_minute = null`
    expect(statuses).toEqual([200, 200, 429])
    expect(await log()).toHaveLength(2)
  })

  test('has its line above, whichever it is', async () => {
    const known = await world.sql`select message from tracking.errors order by message`
    expect([...errors.map(([message]) => message), 'rate_limited'].sort()).toEqual(known.map(({ message }) => message).sort())
  })

  test('is JSON on the wire too, with nothing else in it', async () => {
    const response = await fetch(`${world.api.url}/rest/v1/rpc/track_event`, {
      method: 'POST', headers: { apikey: publishableKey, 'content-type': 'application/json' }, body: '{"v2": {"event": "E"}}' })
    expect(response.status).toBe(401)
    expect(response.headers.get('content-type')).toMatch('application/json')
    expect(Object.keys(await response.json() as object).sort()).toEqual(['code', 'details', 'hint', 'message'])
  })
})

describe('one event id', () => {
  beforeEach(() => world.sql`truncate events`)

  test('sent 50 times at once is one row and 50 ok', async () => {
    const v2 = { event: 'Once', event_id: uuidV7(), tracking_version: 2, org_id: orgs.acme }
    const answers = await Promise.all(Array.from({ length: 50 }, () => as('ada').rpc('track_event', { v2 })))
    expect(answers.map(({ status, data }) => [status, data.status, data.event_id])).toEqual(Array(50).fill([200, 'ok', v2.event_id]))
    expect(answers.filter(({ data }) => !data.duplicate)).toHaveLength(1)
    expect(await log()).toMatchObject([{ event_id: v2.event_id, actor_id: people.ada }])
  })

  test('sent at once by two people of an org is the first one\'s, and their own where they name no org', async () => {
    const event_id = uuidV7()
    const send = (name: string, org_id?: string) =>
      as(name).rpc('track_event', { v2: { event: 'Once', event_id, tracking_version: 2, org_id } })
    const answers = await Promise.all(['ada', 'bob', 'ada', 'bob'].map((name) => send(name, orgs.acme)))
    const alone = await Promise.all(['ada', 'bob'].map((name) => send(name)))
    expect(answers.filter(({ data }) => data.status === 'ok' && !data.duplicate)).toHaveLength(1)
    expect(alone.map(({ data }) => data)).toEqual(Array(2).fill({ status: 'ok', event_id }))
    expect((await log()).map(({ scope_id }) => scope_id).sort()).toEqual([people.ada, people.bob, orgs.acme])
  })
})

describe('a reader', () => {
  beforeAll(async () => {
    await world.sql`truncate events`
    await populate()
  })

  test.each(everybody)('who is %s sees the events of their orgs and apps, and their own, and no others', async (_, caller) => {
    const all = await world.sql`select event_id, org_id, app_id, actor_id from events`
    const visible = all.filter((row) => seesEvent(caller, row as never)).map(({ event_id }) => event_id)
    await expectToSee(caller, 'events', 'event_id', visible)
  })

  test.each(everybody)('who is %s sees their own orgs', async (_, caller) => {
    await expectToSee(caller, 'orgs', 'id', Object.values(orgs).filter((org) => seesOrg(caller, org)))
  })

  test.each(everybody)('who is %s sees the apps they have a role on', async (_, caller) => {
    await expectToSee(caller, 'apps', 'app_id', Object.keys(apps).filter((app) => seesApp(caller, app)))
  })

  test.each(everybody)('who is %s sees the builds of those apps', async (_, caller) => {
    const all = await world.sql`select id, app_id from build_requests`
    expect(all).toHaveLength(4)
    await expectToSee(caller, 'build_requests', 'id', all.filter(({ app_id }) => seesApp(caller, app_id)).map(({ id }) => id))
  })

  test.each(everybody)('who is %s sees the API keys that they own', async (_, caller) => {
    const all = await world.sql`select id, owner_id from api_keys`
    expect(all).toHaveLength(5)
    await expectToSee(caller, 'api_keys', 'id', all.filter(({ owner_id }) => seesApiKey(caller, owner_id)).map(({ id }) => id))
  })

  test.each(clientRoles)('who is %s sees no key\'s hash, and nothing of the machinery', async (_, caller) => {
    const client = clients.get(caller)!
    expect((await client.from('api_keys').select('key_hash')).error).toMatchObject({ code: '42501' })
    for (const table of ['role_bindings', 'settings', 'events_default', 'dead_letters']) {
      expect((await client.schema('tracking').from(table).select()).error).toMatchObject({ code: 'PGRST106' })
    }
  })

  /** Events of everybody for every org and app and for nobody, a build of every app, and a key that is not ada's. */
  async function populate(): Promise<void> {
    const targets = [{}, ...Object.values(orgs).map((org_id) => ({ org_id })), ...Object.keys(apps).map((app_id) => ({ tags: { app_id } }))]
    const events = Object.values(people).flatMap((user_id) =>
      targets.map((target) => ({ event: 'Seen', tracking_version: 2, user_id, ...target })))
    const { data } = await as('the service role').rpc('track_events', { v2: events })
    expect(data).toMatchObject({ accepted: 40, dropped: 0 })
    const builds = Object.keys(apps).map((app_id) => ({ app_id, platform: 'ios', requested_by: people.nik }))
    expect((await as('the service role').from('build_requests').insert(builds)).error).toBeNull()
    expect((await as('eve').rpc('create_api_key', { name: 'hers', role: 'viewer', org_id: orgs.evil })).error).toBeNull()
  }
})

test('a JWT says who the caller is, and an API key beside it says nothing', async () => {
  await world.sql`truncate events`
  const eve = await withBoth(world, 'eve@evil.test', 'as_local_acme_admin')
  const { error } = await eve.rpc('track_event', { v2: { event: 'E', tracking_version: 2, org_id: orgs.acme } })
  expect(error).toMatchObject({ code: 'PT403', message: 'no_permission' })
  expect((await eve.from('orgs').select('name')).data).toEqual([{ name: 'Evil' }])
  expect(await log()).toEqual([])
})

describe('the recorded payloads of a command-line client', () => {
  const file = join(import.meta.dirname, 'fixtures/capgo-cli-8.68.1.jsonl')
  const payloads = readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
  const expected = payloads.map(({ event, channel, tags, nonPersonTags }) => ({
    event, channel, tags: { ...tags, org_id: orgs.demo }, context: nonPersonTags,
    scope_id: orgs.demo, org_id: orgs.demo, actor_id: people.ada, app_id: 'com.demo.app', api_key_id: apiKeys.demoApp,
    source: 'client', tracking_version: 2 }))
  beforeEach(() => world.sql`truncate events`)

  test('are recorded one by one, by ada, for Demo', async () => {
    for (const v2 of payloads) {
      const { data } = await as('the key demo_app').rpc('track_event', { v2 })
      expect(data).toEqual({ status: 'ok', event_id: expect.any(String) })
    }
    expect(await log()).toMatchObject(expected)
  })

  test('are recorded as a batch, by ada, for Demo', async () => {
    const { data } = await as('the key demo_app').rpc('track_events', { v2: payloads })
    expect(data).toMatchObject({ accepted: payloads.length, duplicates: 0, dropped: 0 })
    expect(await log()).toMatchObject(expected)
  })
})

describe('a console broadcast', () => {
  const payload = { event: 'Bundle Uploaded', channel: 'bundle', tracking_version: 2, org_id: orgs.acme, notifyConsole: true }
  beforeEach(() => Promise.all([world.sql`truncate events`, world.sql`truncate realtime.messages`]))

  test('goes to the org\'s private topic and is not recorded', async () => {
    const { status, data } = await as('bob').rpc('track_event', { v2: { ...payload, tags: { app_id: 'com.acme.app' } } })
    expect([status, data.status]).toEqual([200, 'ok'])
    expect(await log()).toEqual([])
    expect(await world.sql`select topic, event, private, payload from realtime.messages`).toMatchObject([{
      topic: `cli-events:org:${orgs.acme}`, event: 'cli-activity', private: true,
      payload: { event: 'Bundle Uploaded', channel: 'bundle', org_id: orgs.acme, app_id: 'com.acme.app' } }])
  })

  test('goes out beside events that are recorded, in one batch', async () => {
    const { data } = await as('bob').rpc('track_events', { v2: [payload, { ...payload, notifyConsole: false }] })
    expect(data).toMatchObject({ accepted: 2, dropped: 0 })
    expect(await log()).toHaveLength(1)
    expect(await world.sql`select topic from realtime.messages`).toHaveLength(1)
  })

  test.each([
    ['eve', {}, 403, 'Forbidden'],
    ['cyd', {}, 403, 'Forbidden'],
    ['bob', { org_id: undefined }, 400, 'missing_org_id'],
    ['the publishable key alone', {}, 401, 'unauthenticated'],
    ['the key revoked', {}, 401, 'invalid_api_key'],
  ])('by %s, who has no right to one with %j, is refused and reaches nobody', async (caller, change, status, message) => {
    const answer = await as(caller).rpc('track_event', { v2: { ...payload, ...change } })
    expect([answer.status, answer.error?.message]).toEqual([status, message])
    expect(await world.sql`select from realtime.messages`).toEqual([])
    expect(await log()).toEqual([])
  })
})

describe('an API key', () => {
  beforeEach(() => world.sql`truncate events`)

  test('works at once when it was made, and no longer when it was revoked', async () => {
    const made = await as('ada').rpc('create_api_key', { name: 'ci', role: 'developer', app_id: 'com.acme.app' })
    expect(made.data).toEqual({
      id: expect.any(String), key: expect.stringMatching(/^as_[0-9a-f]{64}$/), name: 'ci', prefix: made.data.key.slice(0, 11), expires_at: null })
    const program = world.withKey(made.data.key)
    const track = () => program.rpc('track_event', { v2: { event: 'Used', tracking_version: 2, tags: { app_id: 'com.acme.app' } } })
    expect((await track()).data?.status).toBe('ok')
    expect(await log()).toMatchObject([
      { actor_id: people.ada, api_key_id: made.data.id, org_id: orgs.acme, app_id: 'com.acme.app' }])
    const [kept] = await world.sql`select to_jsonb(k)::text as row, last_used_at from api_keys as k where id = ${made.data.id}`
    expect(kept!.row).not.toContain(made.data.key)
    expect(kept!.last_used_at).toBeInstanceOf(Date)

    expect((await as('ada').rpc('revoke_api_key', { id: made.data.id })).error).toBeNull()
    expect((await track()).error).toMatchObject({ code: 'PT401', message: 'invalid_api_key' })
    expect(await log()).toHaveLength(1)
  })

  test.each(['bob', 'cyd', 'eve', 'nik', 'the key acme_admin', 'the key demo_app'])('for Acme is not made by %s', async (caller) => {
    await expectNoNewKey(caller, { name: 'mine', role: 'admin', org_id: orgs.acme }, 403, 'no_permission')
  })

  test.each([
    ['the publishable key alone', 401, 'unauthenticated'],
    ['the key revoked', 401, 'invalid_api_key'],
  ] as const)('is not made by %s', async (caller, status, message) => {
    await expectNoNewKey(caller, { name: 'mine', role: 'admin', org_id: orgs.acme }, status, message)
  })

  test.each(['bob', 'eve', 'nik', 'the key demo_app'])('of ada\'s is not revoked by %s', async (caller) => {
    const { status, error } = await as(caller).rpc('revoke_api_key', { id: apiKeys.acmeAdmin })
    expect([status, error?.message]).toEqual([403, 'no_permission'])
    expect(await world.sql`select revoked_at from api_keys where id = ${apiKeys.acmeAdmin}`).toEqual([{ revoked_at: null }])
  })

  async function expectNoNewKey(caller: string, key: object, status: number, message: string): Promise<void> {
    const before = await world.sql`select id from api_keys order by id`
    const answer = await as(caller).rpc('create_api_key', key)
    expect([answer.status, answer.error?.message]).toEqual([status, message])
    expect(await world.sql`select id from api_keys order by id`).toEqual(before)
  }
})

describe('a build', () => {
  beforeEach(() => Promise.all([world.sql`truncate events`, world.sql`truncate build_requests`]))

  test('that a person asked for and the builder carried out is three events, by that person', async () => {
    const asked = await as('ada').rpc('request_build', { app_id: 'com.acme.app', platform: 'ios', build_mode: 'release' })
    expect(asked.data).toMatchObject({ status: 'pending', requested_by: people.ada, owner_org: orgs.acme, app_id: 'com.acme.app' })
    for (const change of [{ builder_job_id: 'job-1' }, { status: 'running' }, { status: 'succeeded' }]) {
      expect((await as('the service role').from('build_requests').update(change).eq('id', asked.data.id)).error).toBeNull()
    }
    const { data } = await as('ada').from('events').select().eq('tags->>build_id', asked.data.id).order('event_id')
    const common = {
      scope_id: orgs.acme, org_id: orgs.acme, actor_id: people.ada, app_id: 'com.acme.app', api_key_id: null, channel: 'build-lifecycle', source: 'trigger' }
    const tags = { app_id: 'com.acme.app', org_id: orgs.acme, build_id: asked.data.id, platform: 'ios', build_mode: 'release' }
    expect(data).toMatchObject([
      { ...common, event: 'Build Requested', icon: '🛠️', tags },
      { ...common, event: 'Build Started', icon: '⏳', tags: { ...tags, job_id: 'job-1' } },
      { ...common, event: 'Build Succeeded', icon: '✅', tags: { ...tags, job_id: 'job-1', duration_seconds: 0, queue_seconds: 0 } },
    ])
    expect(await log()).toHaveLength(3)
  })

  test('that a program asked for is its key\'s owner\'s', async () => {
    const { data } = await as('the key demo_app').rpc('request_build', { app_id: 'com.demo.app', platform: 'android' })
    expect(data).toMatchObject({ requested_by: people.ada, owner_org: orgs.demo, build_mode: 'release' })
    expect(await log()).toMatchObject([{ event: 'Build Requested', actor_id: people.ada, org_id: orgs.demo, source: 'trigger' }])
  })

  test.each([
    ['bob', 403, 'no_permission'],
    ['cyd', 403, 'no_permission'],
    ['eve', 403, 'no_permission'],
    ['the key demo_app', 403, 'no_permission'],
    ['the publishable key alone', 401, 'unauthenticated'],
    ['the key expired', 401, 'invalid_api_key'],
  ] as const)('of Acme\'s app is refused to %s, by the function and by the table', async (caller, status, message) => {
    const asked = await as(caller).rpc('request_build', { app_id: 'com.acme.app', platform: 'ios' })
    expect([asked.status, asked.error?.message]).toEqual([status, message])
    const inserted = await as(caller).from('build_requests').insert({ app_id: 'com.acme.app', platform: 'ios' })
    expect(inserted.error?.code).toBe('42501')
    expect(await world.sql`select from build_requests`).toEqual([])
    expect(await log()).toEqual([])
  })
})

describe.each(['chapters', 'all'] as const)('with the grants of %s', (grants) => {
  const tables = {
    events: { key: 'event_id', change: { event: 'Changed' } },
    orgs: { key: 'id', change: { name: 'Changed' } },
    apps: { key: 'app_id', change: { name: 'Changed' } },
    api_keys: { key: 'id', change: { revoked_at: null, expires_at: null, name: 'Changed' } },
    build_requests: { key: 'id', change: { status: 'cancelled' } },
  }
  const own = uuidV7()

  beforeAll(async () => {
    await world.sql`truncate events, build_requests`
    if (grants === 'all') await world.sql`grant all on all tables in schema public to anon, authenticated`
    for (const name of ['ada', 'bob', 'eve', 'nik', 'the key acme_admin']) {
      const { data } = await as(name).rpc('track_event', { v2: { event: 'Mine', event_id: uuidV7() } })
      expect(data.status).toBe('ok')
    }
    await as('ada').rpc('track_event', { v2: { event: 'Ours', event_id: own, tracking_version: 2, org_id: orgs.acme } })
    await as('ada').rpc('request_build', { app_id: 'com.acme.app', platform: 'ios' })
  })

  test.each(clientRoles)('%s changes and deletes no row', async (_, caller) => {
    const before = await everything()
    for (const [table, { key, change }] of Object.entries(tables)) {
      const rows = () => clients.get(caller)!.from(table)
      const answers = [await rows().update(change).not(key, 'is', null), await rows().delete().not(key, 'is', null)]
      expectNothing(answers, table)
    }
    expect(await everything()).toEqual(before)
  })

  test.each(clientRoles)('%s adds no org, app or key', async (_, caller) => {
    const before = await everything()
    const rows = { orgs: { name: 'New' }, apps: { app_id: 'com.new.app', name: 'New', owner_org: orgs.acme },
      api_keys: { owner_id: caller.actor ?? people.ada, name: 'New', prefix: 'as_new', key_hash: `\\x${'00'.repeat(32)}` } }
    for (const [table, row] of Object.entries(rows)) {
      expect((await clients.get(caller)!.from(table).insert(row)).error?.code).toBe('42501')
    }
    expect(await everything()).toEqual(before)
  })

  test.each(clientRoles)('%s changes no row by an upsert that merges duplicates', async (_, caller) => {
    const before = await everything()
    const row = { scope_id: orgs.acme, occurred_at: timeOf(own), event_id: own, org_id: orgs.acme, event: 'Changed' }
    const upsert = await clients.get(caller)!.from('events').upsert(row, { onConflict: 'scope_id,occurred_at,event_id' })
    expect(upsert.error?.code).toBe('42501')
    expect(await everything()).toEqual(before)
  })

  test('ada changes no row by an upsert that ignores duplicates, and no error tells of it', async () => {
    const before = await everything()
    const row = { scope_id: orgs.acme, occurred_at: timeOf(own), event_id: own, org_id: orgs.acme, event: 'Changed' }
    const upsert = await as('ada').from('events').upsert(row, { onConflict: 'scope_id,occurred_at,event_id', ignoreDuplicates: true })
    expect(upsert.error).toBeNull()
    expect(await everything()).toEqual(before)
  })

  test('the service role changes and deletes no event', async () => {
    const before = await everything()
    const rows = () => as('the service role').from('events')
    const answers = [await rows().update({ event: 'Changed' }).eq('event_id', own), await rows().delete().eq('event_id', own)]
    expect(answers.map(({ error }) => error?.code)).toEqual(['42501', '42501'])
    expect(await everything()).toEqual(before)
  })

  test('a build is its asker\'s and its app\'s org\'s, whatever the row says', async () => {
    const claims = [{ requested_by: people.eve }, { owner_org: orgs.evil }, { lifecycle: 'finished' }, { status: 'succeeded' }]
    for (const claim of claims) {
      await as('ada').from('build_requests').insert({ app_id: 'com.acme.beta', platform: 'ios', ...claim })
    }
    const rows = await world.sql`
      select distinct requested_by, owner_org, lifecycle, status from build_requests where app_id = 'com.acme.beta'`
    expect(rows).toEqual(grants === 'chapters' ? [] :
      [{ requested_by: people.ada, owner_org: orgs.acme, lifecycle: 'requested', status: 'pending' }])
  })

  // Without the grant, an error; with it, no row that a policy would let through.
  function expectNothing(answers: { error: { code: string } | null }[], table: string): void {
    const code = grants === 'chapters' ? '42501' : undefined
    expect(answers.map(({ error }) => error?.code), table).toEqual([code, code])
  }

  async function everything(): Promise<object> {
    const [found] = await world.sql`
      select (select jsonb_agg(e order by event_id) from events as e) as events,
             (select jsonb_agg(o order by id) from orgs as o) as orgs,
             (select jsonb_agg(a order by app_id) from apps as a) as apps,
             (select jsonb_agg(k order by id) from api_keys as k) as api_keys,
             (select jsonb_agg(b order by id) from build_requests as b) as build_requests`
    return found!
  }
})

async function expectToSee(caller: Caller, table: string, key: string, expected: string[]): Promise<void> {
  const { status, data, error } = await clients.get(caller)!.from(table).select(key)
  if (caller.role === null) return expect({ status, code: error?.code }).toEqual({ status: 401, code: caller.refused!.code })
  expect(error).toBeNull()
  expect((data as never as Record<string, string>[]).map((row) => row[key]).sort()).toEqual([...expected].sort())
}

async function errorNamed(message: string): Promise<{ code: string, hint: string }> {
  const [found] = await world.sql<{ code: string, hint: string }[]>`select code, hint from tracking.errors where message = ${message}`
  return found!
}

/** The log as superuser, in the order in which it was written. */
async function log() {
  return world.sql`select * from events order by txid, event_id, scope_id`
}
