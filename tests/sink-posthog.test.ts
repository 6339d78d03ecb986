import { PostHog } from 'posthog-node'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import type { EventRow } from '../src/sink.ts'
import { orgs, people } from './demo.ts'
import { startPostHog, type CapturedEvent, type Fault, type Receiver } from './receivers.ts'
import { createSink, deadLetters, deliver, lease, open, retryNow, rewind, trackIn, writeEvent } from './sending.ts'
import type { Track } from './sending.ts'
import { createWorld, type World } from './world.ts'

const apiKey = 'phc_f8a7c3b1d2e4'
const environment = { POSTHOG_API_KEY: apiKey }
const days = (n: number) => n * 86_400_000
const hours = (n: number) => n * 3_600_000

let world: World
let track: Track
let posthog: Receiver<CapturedEvent>

beforeAll(async () => {
  world = await createWorld()
  track = trackIn(world)
  posthog = await startPostHog(apiKey)
})
beforeEach(async () => {
  await world.sql`delete from tracking.sinks`
  await world.sql`truncate public.events`
  await world.sql`update public.orgs set name = 'Acme' where id = ${orgs.acme}`
  posthog.options = {}
  posthog.clear()
})
afterEach(() => expect(posthog.breaches).toEqual([]))
afterAll(async () => {
  await posthog?.close()
  await world?.close()
})

// On purpose: who sends it ($lib); an announcement's id and time, which are chosen so that it can be sent again; and no
// sent_at, which would move times by how late a try is.
test.each([true, false])('what arrives is what posthog-node sends, field by field; $set: %s', async (setsPersons) => {
  const settings = { set_person_properties: setsPersons }
  await setUp(settings)
  await trackEveryKind()
  const { events } = (await lease(world.sql, 'posthog'))!
  const sink = { sink: 'posthog', kind: 'posthog', settings: { host: posthog.url, ...settings } }
  await (await open(world.sql, sink, { environment })).send(events, AbortSignal.timeout(10_000))
  const ours = posthog.requests.splice(0)
  await captureWithTheirs(events.map(({ row }) => row), setsPersons)
  const theirs = posthog.requests

  expect(ours.map(({ method, path }) => [method, path])).toEqual(theirs.map(({ method, path }) => [method, path]))
  expect(ours.map(({ body }) => common(body))).toEqual(theirs.map(({ body }) => common(body)))
  expect(ours.map(({ body }) => (body as Body).batch.map(({ event }) => event))).toEqual([
    ['$groupidentify', 'Report Exported', 'Signed In', 'Old', 'Old and own', 'Invoiced', '$groupidentify', 'Renewed',
      'Build Requested'],
    ['Backfilled', 'Backfilled by an old client'],
    ['Tried again'],
  ])
  expect(ours.map(({ body }) => [(body as Body).batch[0]!.properties.$lib, 'sent_at' in (body as Body)]))
    .toEqual(Array(3).fill(['actorscope', false]))
})

/** Tracks what there is: with and without an org, of versions 1 and 2, by a service and a trigger, of today and not. */
async function trackEveryKind(): Promise<void> {
  const tags = { app_id: 'com.acme.app', format: 'csv', pages: 3, deep: { a: [1, null] } }
  await track('ada@acme.test', {
    event: 'Report Exported', channel: 'reports', description: 'As CSV', org_id: orgs.acme, tags,
    nonPersonTags: { os: 'linux' } })
  await track('ada@acme.test', { event: 'Signed In', tags: { plan: 'free' } })
  await track('ada@acme.test', { event: 'Old', tracking_version: 1, user_id: orgs.acme, tags })
  await track('ada@acme.test', { event: 'Old and own', tracking_version: 1, user_id: people.ada })
  const serve = (payload: object) => world.service().rpc('track_event', { v2: { tracking_version: 2, ...payload } })
  await serve({ event: 'Invoiced', org_id: orgs.acme, tags: { amount: 5 } })
  await serve({ event: 'Renewed', org_id: orgs.demo, user_id: people.ada, tags: { plan: 'pro' } })
  await world.sql`
    insert into build_requests (owner_org, app_id, requested_by, platform)
    values (${orgs.acme}, 'com.acme.app', ${people.ada}, 'ios')`
  const timestamp = new Date(Date.now() - days(3)).toISOString()
  await track('ada@acme.test', { event: 'Backfilled', org_id: orgs.acme, timestamp })
  await track('ada@acme.test', {
    event: 'Backfilled by an old client', tracking_version: 1, user_id: orgs.acme, timestamp })
  await track('ada@acme.test', { event: 'Tried again', timestamp: new Date(Date.now() - hours(47)).toISOString() })
}

/** Sends events as somebody would with posthog-node: history by a client of its own, an org when it first appears. */
async function captureWithTheirs(events: EventRow[], setsPersons: boolean): Promise<void> {
  const known = new Set<string>()
  const runs: { isHistory: boolean, events: EventRow[] }[] = []
  for (const event of events) {
    const isHistory = event.event.startsWith('Backfilled')
    if (runs.at(-1)?.isHistory !== isHistory) runs.push({ isHistory, events: [] })
    runs.at(-1)!.events.push(event)
  }
  for (const { isHistory, events } of runs) {
    const client = new PostHog(apiKey, {
      host: posthog.url, flushAt: 100, flushInterval: 0, historicalMigration: isHistory })
    for (const event of events) captureWith(client, event, setsPersons, known)
    await client.shutdown()
  }
}

const namesOfOrgs: Record<string, string> = { [orgs.acme]: 'Acme', [orgs.demo]: 'Demo' }

function captureWith(client: PostHog, row: EventRow, setsPersons: boolean, known: Set<string>): void {
  const { event, event_id, occurred_at, actor_id, org_id, tags, context, channel, description } = row
  if (org_id && !known.has(org_id)) {
    known.add(org_id)
    client.groupIdentify({ groupType: 'organization', groupKey: org_id, properties: { name: namesOfOrgs[org_id] } })
  }
  const describesSomebody = setsPersons && actor_id && Object.keys(tags).length > 0
  client.capture({
    distinctId: row.tracking_version === 1 && org_id ? org_id : actor_id ?? org_id!,
    event, uuid: event_id, timestamp: new Date(occurred_at), ...org_id && { groups: { organization: org_id } },
    properties: {
      ...context, ...tags, channel, ...description && { description }, ...describesSomebody && { $set: tags } },
  })
}

type Body = { batch: CapturedEvent[], sent_at?: string }

/** A request's body, but for what differs on purpose. */
function common(body: unknown) {
  const { batch, sent_at, ...rest } = body as Body
  return { ...rest, batch: batch.map(({ properties, uuid, timestamp, ...event }) => {
    const { $lib, $lib_version, $is_server, ...others } = properties
    return { ...event, properties: others, ...event.event !== '$groupidentify' && { uuid, timestamp } }
  }) }
}

test('tags describe the event and the person, the context the event alone', async () => {
  await setUp()
  await track('ada@acme.test', {
    event: 'Exported', org_id: orgs.acme, channel: 'reports', tags: { format: 'csv' },
    nonPersonTags: { format: 'hidden by the tag', os: 'linux' } })
  await deliver(world.sql, 'posthog', { environment })
  expect(captured().at(-1)).toEqual({
    uuid: expect.any(String), event: 'Exported', distinct_id: people.ada, historical: false,
    timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    properties: {
      format: 'csv', os: 'linux', org_id: orgs.acme, channel: 'reports', $set: { format: 'csv', org_id: orgs.acme },
      $groups: { organization: orgs.acme }, $lib: 'actorscope', $geoip_disable: true,
    },
  })
})

test('persons are left as they are where the sink is set so', async () => {
  await setUp({ set_person_properties: false })
  await track('ada@acme.test', { event: 'Exported', tags: { format: 'csv' } })
  await deliver(world.sql, 'posthog', { environment })
  expect(captured()[0]!.properties).toEqual({
    format: 'csv', channel: 'default', $lib: 'actorscope', $geoip_disable: true })
})

test('an event of version 1 that named an org is by the org, as version 1 meant it', async () => {
  await setUp()
  await track('ada@acme.test',
    { event: 'Old', tracking_version: 1, user_id: orgs.acme },
    { event: 'Own', tracking_version: 1, user_id: people.ada },
    { event: 'New', tracking_version: 2, org_id: orgs.acme })
  await deliver(world.sql, 'posthog', { environment })
  const events = captured().filter(({ event }) => event !== '$groupidentify')
  expect(events.map(({ event, distinct_id, properties }) => [event, distinct_id, properties.$groups])).toEqual([
    ['Old', orgs.acme, { organization: orgs.acme }],
    ['Own', people.ada, undefined],
    ['New', people.ada, { organization: orgs.acme }]])
})

test('a service\'s event without an actor is by its org, and describes no person', async () => {
  await setUp()
  const payload = { event: 'Invoiced', tracking_version: 2, org_id: orgs.acme, tags: { amount: 5 } }
  await world.service().rpc('track_event', { v2: payload })
  await deliver(world.sql, 'posthog', { environment })
  expect(captured().at(-1)).toMatchObject({ event: 'Invoiced', distinct_id: orgs.acme })
  expect(captured().at(-1)!.properties).toEqual({
    amount: 5, org_id: orgs.acme, channel: 'default', $groups: { organization: orgs.acme }, $lib: 'actorscope',
    $geoip_disable: true })
})

test('an org is introduced by its name, ahead of its first event, and again when the name has changed', async () => {
  await setUp()
  await track('ada@acme.test',
    { event: 'Alone' }, { event: 'First', org_id: orgs.acme }, { event: 'Second', org_id: orgs.acme },
    { event: 'Other', org_id: orgs.demo })
  await deliver(world.sql, 'posthog', { environment })
  expect(story()).toEqual(['Alone', 'organization Acme', 'First', 'Second', 'organization Demo', 'Other'])
  const first = captured()[1]!
  expect(first).toEqual({
    uuid: expect.stringMatching(/^[0-9a-f-]{36}$/), event: '$groupidentify', historical: false,
    distinct_id: `$organization_${orgs.acme}`, timestamp: captured()[2]!.timestamp,
    properties: {
      $group_type: 'organization', $group_key: orgs.acme, $group_set: { name: 'Acme' }, $lib: 'actorscope',
      $geoip_disable: true },
  })
  posthog.clear()
  await track('ada@acme.test', { event: 'Third', org_id: orgs.acme })
  await deliver(world.sql, 'posthog', { environment })
  await world.sql`update public.orgs set name = 'Acme Inc' where id = ${orgs.acme}`
  await track('ada@acme.test', { event: 'Fourth', org_id: orgs.acme }, { event: 'Fifth', org_id: orgs.acme })
  await deliver(world.sql, 'posthog', { environment })
  expect(story()).toEqual(['Third', 'organization Acme Inc', 'Fourth', 'Fifth'])
})

test('each sink is told an org\'s name', async () => {
  await setUp()
  await createSink(world.sql, 'posthog-eu', 'posthog', { host: posthog.url })
  await track('ada@acme.test', { event: 'First', org_id: orgs.acme })
  await deliver(world.sql, 'posthog', { environment })
  await deliver(world.sql, 'posthog-eu', { environment })
  expect(story()).toEqual(['organization Acme', 'First', 'organization Acme', 'First'])
})

test('whatever is sent again is the same to the byte, in whatever batches', async () => {
  await setUp()
  for (const n of [1, 2, 3, 4, 5, 6, 7]) {
    const org_id = n % 2 ? orgs.acme : orgs.demo
    await track('ada@acme.test', { event: `Event ${n}`, org_id, tags: { n, b: true, a: [1.5, 'x'] } })
  }
  await deliver(world.sql, 'posthog', { environment })
  const sent = posthog.taken.splice(0).map((event) => JSON.stringify(event))
  expect(sent).toHaveLength(9)
  for (const size of [500, 1, 2, 3, 5]) {
    await rewind(world.sql, 'posthog')
    await deliver(world.sql, 'posthog', { environment, size })
    expect(posthog.taken.splice(0).map((event) => JSON.stringify(event))).toEqual(sent)
  }
})

test('what a lost answer leaves in doubt is sent again, the same to the byte, announcements too', async () => {
  await setUp()
  await track('ada@acme.test', { event: 'First', org_id: orgs.acme })
  posthog.options = { fault: (_, n) => n === 0 ? { cut: 'after' } : undefined }
  expect(await deliver(world.sql, 'posthog', { environment })).toBeNull()
  expect(story()).toEqual(['organization Acme', 'First', 'organization Acme', 'First'])
  expect(posthog.requests[1]!.text).toBe(posthog.requests[0]!.text)
})

test('two workers that hold the same batch send the same', async () => {
  await setUp()
  await track('ada@acme.test', { event: 'First', org_id: orgs.acme }, { event: 'Second', org_id: orgs.acme })
  const { events } = (await lease(world.sql, 'posthog'))!
  const workers = [await openHere(), await openHere(), await openHere(), await openHere()]
  await Promise.all(workers.map((worker) => worker.send(events, AbortSignal.timeout(10_000))))
  expect(new Set(posthog.requests.map(({ text }) => text)).size).toBe(1)
  expect(story().slice(0, 3)).toEqual(['organization Acme', 'First', 'Second'])
})

test('an announcement whose event is refused goes ahead of the next one', async () => {
  await setUp()
  await track('ada@acme.test', { event: 'Poison', org_id: orgs.acme })
  await track('ada@acme.test', { event: 'Good', org_id: orgs.acme })
  posthog.options = { poison: ({ event }) => event === 'Poison' }
  expect(await deliver(world.sql, 'posthog', { environment })).toBeNull()
  expect(await deadLetters(world.sql, 'posthog')).toEqual([['Poison', '400 invalid event could not be processed']])
  expect(story()).toEqual(['organization Acme', 'Good'])
  posthog.breaches.length = 0
})

test('an organization that PostHog will not be told of keeps no event back, and is not told of again', async () => {
  await setUp()
  await track('ada@acme.test', { event: 'First', org_id: orgs.acme })
  await track('ada@acme.test', { event: 'Second', org_id: orgs.acme })
  posthog.options = { poison: ({ event }) => event === '$groupidentify' }
  expect(await deliver(world.sql, 'posthog', { environment })).toBeNull()
  expect(await deadLetters(world.sql, 'posthog')).toEqual([])
  expect(story()).toEqual(['First', 'Second'])
  posthog.options = {}
  await track('ada@acme.test', { event: 'Third', org_id: orgs.acme })
  await deliver(world.sql, 'posthog', { environment })
  expect(story()).toEqual(['First', 'Second', 'Third'])
  posthog.breaches.length = 0
})

test('an event that is too large together with its organization goes apart from it', async () => {
  await setUp()
  await track('ada@acme.test', { event: 'First', org_id: orgs.acme })
  posthog.options = { fault: ({ body }) => (body as { batch: unknown[] }).batch.length > 1 ? { status: 413 } : undefined }
  expect(await deliver(world.sql, 'posthog', { environment })).toBeNull()
  expect(await deadLetters(world.sql, 'posthog')).toEqual([])
  expect(story()).toEqual(['organization Acme', 'First'])
})

test('what was older than 48 hours when it was received is history, in requests of its own, in its place', async () => {
  await setUp()
  const row = (event: string, age: number, behind = 0) => writeEvent(world.sql, {
    event, actor_id: people.ada, occurred: new Date(Date.now() - age - behind),
    received_at: new Date(Date.now() - behind).toISOString() })
  await row('Live', 0)
  await row('Old', hours(48) + 60_000)
  await row('Older', days(400))
  await row('Not that old', hours(48) - 60_000)
  await row('Delayed by an outage', hours(1), days(10))
  await deliver(world.sql, 'posthog', { environment })
  expect(posthog.requests.map(({ body }) => {
    const { historical_migration, batch } = body as { historical_migration?: boolean, batch: CapturedEvent[] }
    return [historical_migration, ...batch.map(({ event }) => event)]
  })).toEqual([[undefined, 'Live'], [true, 'Old', 'Older'], [undefined, 'Not that old', 'Delayed by an outage']])
})

test('a sink that is filled from the past may call all of it history', async () => {
  await setUp({ historical_before: '2026-01-01T00:00:00Z' })
  await writeEvent(world.sql, {
    event: 'Past', actor_id: people.ada,
    occurred: new Date('2025-11-05T09:30:00Z'), received_at: '2025-11-05T09:30:01Z' })
  await writeEvent(world.sql, { event: 'Present', actor_id: people.ada })
  await deliver(world.sql, 'posthog', { environment })
  expect(captured().map(({ event, historical }) => [event, historical])).toEqual([['Past', true], ['Present', false]])
})

test('an id that PostHog forbids is never sent', async () => {
  await setUp()
  await writeEvent(world.sql, { event: 'Nobody', actor_id: '00000000-0000-0000-0000-000000000000' })
  await writeEvent(world.sql, { event: 'Somebody', actor_id: people.ada })
  await deliver(world.sql, 'posthog', { environment })
  expect(story()).toEqual(['Somebody'])
  expect(await deadLetters(world.sql, 'posthog')).toEqual([
    ['Nobody', 'PostHog forbids the distinct id "00000000-0000-0000-0000-000000000000".']])
})

test('a client\'s event neither merges persons nor renames groups', async () => {
  await setUp()
  const names = [
    '$identify', '$create_alias', '$merge_dangerously', '$groupidentify', '$set', '$unset', '$delete', '$snapshot',
    '$snapshot_items', '$$heatmap']
  const tags = { alias: people.eve, $anon_distinct_id: people.eve }
  await track('ada@acme.test', ...names.map((event) => ({ event, tags })), { event: '$pageview' })
  await deliver(world.sql, 'posthog', { environment })
  expect(story()).toEqual(['$pageview'])
  expect((await deadLetters(world.sql, 'posthog')).map(([event]) => event).sort()).toEqual([...names].sort())
})

test('tags and context do not pass for what PostHog reads in them', async () => {
  await setUp()
  const forged = {
    distinct_id: people.eve, $distinct_id: people.eve, $anon_distinct_id: people.eve, $device_id: 'x',
    token: 'phc_x', api_key: 'phc_x', $token: 'phc_x', $ip: '1.2.3.4',
    $set: { plan: 'enterprise' }, $set_once: { plan: 'enterprise' }, $unset: ['plan'],
    $groups: { organization: orgs.evil }, $group_0: orgs.evil, $group_1: orgs.evil, $group_2: orgs.evil,
    $group_3: orgs.evil, $group_4: orgs.evil, $group_type: 'organization', $group_key: orgs.evil,
    $group_set: { name: 'Mine' }, $lib: 'web', $lib_version: '1', $geoip_disable: false,
    $process_person_profile: false, $cookieless_mode: true, $ignore_sent_at: true, capture_internal: true,
  }
  await track('ada@acme.test', {
    event: 'Forged', tags: { ...forged, $session_id: 's', kept: 1 }, nonPersonTags: { ...forged, also: 2 } })
  await deliver(world.sql, 'posthog', { environment })
  expect(captured()).toEqual([expect.objectContaining({
    distinct_id: people.ada,
    properties: {
      also: 2, $session_id: 's', kept: 1, channel: 'default', $set: { kept: 1 }, $lib: 'actorscope',
      $geoip_disable: true },
  })])
})

test('a tag that is called __proto__ is a tag like any', async () => {
  await setUp()
  const tags = { kept: 1, ['__proto__']: { x: 1 } }
  await track('ada@acme.test', { event: 'Odd', tags, nonPersonTags: { os: 'linux' } })
  await deliver(world.sql, 'posthog', { environment })
  expect(JSON.stringify(captured()[0]!.properties)).toBe(JSON.stringify({
    os: 'linux', ...tags, channel: 'default', $set: tags, $lib: 'actorscope', $geoip_disable: true }))
})

test('a 200 that stored nothing is no success', async () => {
  await setUp()
  await track('ada@acme.test', { event: 'First' })
  for (const [text, said] of [
    ['{"status":"Ok","quota_limited":["events"]}', 'is over its quota of events at PostHog'],
    ['<html>Welcome</html>', 'is answered by something that is no PostHog'],
  ] as const) {
    posthog.options = { fault: () => ({ status: 200, text }) }
    expect(await deliver(world.sql, 'posthog', { environment })).toMatchObject({
      kind: 'retry', retryAfterMs: 300_000, message: `The sink "posthog" ${said}.` })
    await retryNow(world.sql, 'posthog')
  }
  posthog.options = {}
  expect(await deliver(world.sql, 'posthog', { environment })).toBeNull()
  expect(story()).toEqual(['First'])
})

test('through faults of every kind nothing is lost, and each org\'s events keep their order', async () => {
  await setUp({ timeout_seconds: 1 })
  const groups = [orgs.acme, orgs.demo, undefined]
  for (let n = 0; n < 150; n += 30) {
    const payload = (n: number) => ({ event: `Event ${n}`, org_id: groups[n % 3], tags: { n } })
    await track('ada@acme.test', ...Array.from({ length: 30 }, (_, i) => payload(n + i)))
  }
  // Every request of the first ones fails in another way; then every third.
  const faults: Fault[] = [
    { status: 500 }, { status: 503, headers: { 'retry-after': '1' } }, { status: 429, headers: { 'retry-after': '1' } },
    { cut: 'before' }, { cut: 'after' }, { cut: 'amid' }, { delayMs: 1500 }, { status: 408 }, { status: 502 }]
  const passing: Fault[] = [{ status: 500 }, { cut: 'before' }, { cut: 'after' }]
  posthog.options = {
    fault: (_, n) => n < faults.length ? faults[n] : n % 3 === 0 ? passing[(n / 3) % 3] : undefined,
    poison: ({ properties }) => Number(properties.n) % 50 === 7,
    maxBytes: 20_000,
  }
  let stops = 0
  while (await deliver(world.sql, 'posthog', { environment })) {
    await retryNow(world.sql, 'posthog')
    expect(stops++).toBeLessThan(200)
  }
  const poisoned = [7, 57, 107]
  expect((await deadLetters(world.sql, 'posthog')).map(([event]) => event)).toEqual(poisoned.map((n) => `Event ${n}`))
  const isGroup = ({ event }: CapturedEvent) => event === '$groupidentify'
  const numbers = captured().filter((event) => !isGroup(event)).map(({ properties: { n } }) => Number(n))
  const arrived = [...new Set(numbers)]
  const due = Array.from({ length: 150 }, (_, n) => n).filter((n) => !poisoned.includes(n))
  for (const group of [0, 1, 2]) {
    const inGroup = (n: number) => n % 3 === group
    expect(arrived.filter(inGroup)).toEqual(due.filter(inGroup))
  }
  expect(new Set(captured().filter(isGroup).map(({ properties }) => properties.$group_key)))
    .toEqual(new Set([orgs.acme, orgs.demo]))
  expect(await world.sql`select delivered::int, undelivered::int, pending::int from tracking.sink_lag`).toEqual([
    { delivered: 147, undelivered: 3, pending: 0 }])
  posthog.breaches.length = 0
})

test('what becomes of the build of somebody who was erased is the organization\'s, and no person\'s', async () => {
  await setUp()
  await writeEvent(world.sql, {
    event: 'Build Succeeded', actor_id: '00000000-0000-0000-0000-000000000000', org_id: orgs.acme, source: 'trigger',
    tags: { platform: 'ios' } })
  expect(await deliver(world.sql, 'posthog', { environment })).toBeNull()
  expect(captured().at(-1)).toMatchObject({ event: 'Build Succeeded', distinct_id: orgs.acme })
  expect(captured().at(-1)!.properties).not.toHaveProperty('$set')
  expect(await deadLetters(world.sql, 'posthog')).toEqual([])
})

test('a request stays under PostHog\'s 20 MB', async () => {
  await setUp()
  const blob = 'x'.repeat(32_000)
  const payloads = Array.from({ length: 100 }, () => ({ event: 'Event', tags: { blob } }))
  for (let n = 0; n < 4; n++) await track('ada@acme.test', ...payloads)
  await deliver(world.sql, 'posthog', { environment })
  expect(posthog.taken).toHaveLength(400)
  expect(posthog.requests.length).toBeGreaterThan(1)
  expect(Math.max(...posthog.requests.map(({ text }) => text.length))).toBeLessThan(10_000_000)
})

async function setUp(settings: object = {}): Promise<void> {
  await createSink(world.sql, 'posthog', 'posthog', { host: posthog.url, ...settings })
}

const openHere = () =>
  open(world.sql, { sink: 'posthog', kind: 'posthog', settings: { host: posthog.url } }, { environment })

const captured = () => posthog.taken

/** What PostHog took, in order: names of events, and of the orgs that were introduced. */
const story = () => posthog.taken.map(({ event, properties }) =>
  event === '$groupidentify' ? `${properties.$group_type} ${(properties.$group_set as { name: string }).name}` : event)
