import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { publishableKey, secretKey } from '../src/api.ts'
import { createTracker, defineCatalog, type Tracker, type TrackerOptions } from '../src/tracker.ts'
import { orgs, people } from './demo.ts'
import { startProxy, until, type Proxy } from './tracker-proxy.ts'
import { createWorld, type World } from './world.ts'

const catalog = defineCatalog({
  'Report Exported': { channel: 'reports', icon: '📄', scope: 'org', tags: { format: ['csv', 'pdf'] } },
  'Bundle Uploaded': { scope: 'app' },
  'Signed In': { channel: 'sessions', scope: 'actor' },
})

let world: World
let proxy: Proxy
let trackers: Tracker<any>[] = []
let told: { code: string, event: any }[] = []

beforeAll(async () => { world = await createWorld() })
afterAll(() => world.close())
beforeEach(async () => {
  proxy = await startProxy(world.api.url)
  told = []
})
afterEach(async () => {
  proxy.always('pass')
  for (const tracker of trackers.splice(0)) {
    tracker.optOut()
    await tracker.shutdown(1_000)
  }
  await proxy.close()
  await world.sql`truncate events`
})

/** Ada's tracker, by her API key, through the proxy. */
function track(options: TrackerOptions<any> = {}): Tracker {
  const tracker = createTracker({ url: proxy.url, publishableKey, apiKey: 'as_local_acme_admin' }, {
    retryDelay: 5, maxRetryDelay: 50, onError: (error, event) => told.push({ code: error.code, event: event?.event }), ...options })
  trackers.push(tracker)
  return tracker
}

const rows = () => world.sql`select event, actor_id, org_id, app_id, channel, icon, tags, context, event_id, occurred_at from events order by event_id`
const names = async () => (await rows()).map(({ event }) => event)
const sizes = () => proxy.seen.map(({ events }) => events.length)
const numbered = (count: number) => Array.from({ length: count }, (_, i) => `Event ${String(i).padStart(5, '0')}`)

describe('an event', () => {
  test('is what the call said, by whom the credentials say', async () => {
    const tracker = track({ context: { release: '1.2.3', page: '/' } })
    tracker.track('Opened', {
      tags: { format: 'csv' }, context: { page: '/reports' }, app: 'com.acme.app', channel: 'reports', icon: '📄',
      description: 'A report was opened', notify: true })
    await tracker.flush()

    const [row] = await world.sql`select * from events`
    expect(row).toMatchObject({
      event: 'Opened', channel: 'reports', icon: '📄', description: 'A report was opened', notify: true,
      tags: { format: 'csv', app_id: 'com.acme.app', org_id: orgs.acme }, context: { release: '1.2.3', page: '/reports' },
      app_id: 'com.acme.app', org_id: orgs.acme, actor_id: people.ada, source: 'client', tracking_version: 2 })
  })

  test('has the id and the time of the call, and the request tells the time of the request', async () => {
    // Given a clock that goes on between the call and the request
    let now = Date.parse('2026-11-05T09:30:00.123Z')
    const tracker = track({ clock: () => now })
    tracker.track('Opened')
    now += 60_000
    await tracker.flush()

    const [row] = await rows()
    expect(row?.occurred_at).toEqual(new Date('2026-11-05T09:30:00.123Z'))
    expect(proxy.seen[0]?.events[0]).toMatchObject({ event_id: row?.event_id, sent_at: '2026-11-05T09:31:00.123Z' })
  })

  test('keeps its place among the events of the same millisecond', async () => {
    const tracker = track({ clock: () => 1_790_000_000_000.5, maxBatchSize: 1_000 })
    for (const name of numbered(3_000)) tracker.track(name)
    await tracker.flush()

    expect(await names()).toEqual(numbered(3_000))
    expect(new Set((await rows()).map(({ occurred_at }) => Number(occurred_at)))).toEqual(new Set([1_790_000_000_000]))
  })

  test('can have a time and an id of its own, and is the same row wherever it is sent from', async () => {
    const tracker = track()
    const timestamp = '2026-10-01T12:00:00.000Z'
    tracker.track('Ordered', { eventId: 'order-17', timestamp })
    tracker.track('Ordered', { eventId: 'order-17', timestamp: new Date(timestamp) })
    tracker.track('Shipped', { timestamp: Date.parse(timestamp) })
    tracker.track('Ordered', { eventId: 'order-18' })
    const stats = await tracker.flush()

    expect((await rows()).map(({ event, occurred_at }) => [event, occurred_at])).toEqual(expect.arrayContaining([
      ['Ordered', new Date(timestamp)], ['Shipped', new Date(timestamp)]]))
    expect(stats).toMatchObject({ sent: 2, duplicates: 1, dropped: { timestamp_required: 1 } })
  })

  test('does not change with the objects that it was made of', async () => {
    const tags = { step: 'one', deep: { list: [1] } }
    const tracker = track()
    tracker.track('Stepped', { tags })
    tags.step = 'two'
    tags.deep.list.push(2)
    await tracker.flush()

    expect((await rows())[0]?.tags).toEqual({ step: 'one', deep: { list: [1] } })
  })

  test('may hold any character, though Postgres has no place for some', async () => {
    const tracker = track()
    tracker.track('Typed', { tags: { nul: 'a\0b', half: 'a\ud83db', whole: '😀', escaped: '\\u0000 \\ud83d' } })
    await tracker.flush()

    expect((await rows())[0]?.tags).toEqual({ nul: 'a\ufffdb', half: 'a\ufffdb', whole: '😀', escaped: '\\u0000 \\ud83d' })
  })

  test('of the service role may name its actor', async () => {
    const backend = createTracker({ url: proxy.url, publishableKey: secretKey })
    trackers.push(backend)
    backend.track('Invoiced', { actor: people.bob, org: orgs.acme })
    await backend.flush()

    expect(await world.sql`select event, actor_id, org_id, source from events`).toEqual(
      [{ event: 'Invoiced', actor_id: people.bob, org_id: orgs.acme, source: 'service' }])
  })
})

describe('what a program does wrong', () => {
  const loop: Record<string, unknown> = {}
  loop.self = loop
  const wrong: [string, (tracker: any) => void][] = [
    ['a cycle', (tracker) => tracker.track('Wrong', { tags: loop })],
    ['a BigInt', (tracker) => tracker.track('Wrong', { tags: { n: 1n } })],
    ['a getter that throws', (tracker) => tracker.track('Wrong', { tags: { get boom() { throw new Error('boom') } } })],
    ['details that throw', (tracker) => tracker.track('Wrong', { get tags() { throw new Error('boom') } })],
    ['tags that are a text', (tracker) => tracker.track('Wrong', { tags: 'red', app: 'com.acme.app' })],
    ['a context that is a number', (tracker) => tracker.track('Wrong', { context: 7 })],
    ['a time that is none', (tracker) => tracker.track('Wrong', { timestamp: 'yesterday' })],
    ['a name that is a number', (tracker) => tracker.track(42)],
    ['tags that are a list', (tracker) => tracker.track('Wrong', { tags: ['red'] })],
  ]
  test.each(wrong)('does not break it: %s is reported as invalid_payload', async (_, act) => {
    const tracker = track()
    act(tracker)
    tracker.track('Right')
    const stats = await tracker.flush()

    expect(await names()).toEqual(['Right'])
    expect(told.map(({ code }) => code)).toEqual(['invalid_payload'])
    expect(stats).toMatchObject({ tracked: 2, sent: 1, dropped: { invalid_payload: 1 } })
  })

  test('does not break it: an event without a name is for the database to refuse', async () => {
    const tracker = track() as any
    tracker.track()
    tracker.track(null, null)
    tracker.track('  ')
    tracker.track('Old', { timestamp: -1 })
    expect(await tracker.flush()).toMatchObject({ dropped: { missing_event: 3, timestamp_out_of_range: 1 } })
  })

  test('in onError stays there, whether it throws or rejects', async () => {
    const unhandled = vi.fn()
    process.on('unhandledRejection', unhandled)
    for (const onError of [() => { throw new Error('host') }, async () => { throw new Error('host') }]) {
      const tracker = track({ onError })
      tracker.track('Opened', { org: orgs.evil })
      tracker.track('Opened', { tags: loop })
      expect(await tracker.flush()).toMatchObject({ dropped: { no_permission: 1, invalid_payload: 1 } })
    }
    await new Promise((done) => setTimeout(done, 20))
    process.off('unhandledRejection', unhandled)
    expect(unhandled).not.toHaveBeenCalled()
  })

  test('does not cost the events beside it, where Postgres cannot read its request', async () => {
    // Given an event nested deeper than Postgres can read, which makes the whole request unreadable
    const depth = 60_000
    const tracker = track({ maxBatchSize: 8 })
    const deep: Record<string, unknown> = { toJSON: () => 'DEEP' }
    const sane = (name: string) => tracker.track(name)
    numbered(5).forEach(sane)
    tracker.track('Deep', { tags: { deep } })
    numbered(10).slice(5).forEach(sane)
    const send = (input: any, init: any) => fetch(input, { ...init, body: init.body.replace('"DEEP"', '['.repeat(depth) + ']'.repeat(depth)) })
    const other = track({ maxBatchSize: 8, fetch: send as typeof fetch })
    numbered(5).forEach((name) => other.track(name))
    other.track('Deep', { tags: { deep } })
    numbered(10).slice(5).forEach((name) => other.track(name))
    tracker.optOut()
    const stats = await other.flush()

    expect(await names()).toEqual(numbered(10))
    expect(stats).toMatchObject({ sent: 10, retries: 0 })
    expect(Object.values(stats.dropped)).toEqual([1])
  })
})

describe('beforeSend', () => {
  test('may edit an event or drop it, and sees a copy', async () => {
    const tags = { email: 'ada@acme.test', plan: 'pro' }
    const seen: unknown[] = []
    const tracker = track({
      beforeSend(event) {
        seen.push(event)
        if (event.event === 'Secret') return null
        const { email, ...rest } = event.tags as typeof tags
        return { ...event, tags: rest }
      },
    })
    tracker.group(orgs.acme)
    tracker.track('Upgraded', { tags })
    tracker.track('Secret', { tags })
    const stats = await tracker.flush()

    expect(seen[0]).toMatchObject({ event: 'Upgraded', tags, org_id: orgs.acme, tracking_version: 2, event_id: expect.any(String) })
    expect((await rows()).map(({ event, tags }) => [event, tags])).toEqual([['Upgraded', { plan: 'pro', org_id: orgs.acme }]])
    expect(tags).toEqual({ email: 'ada@acme.test', plan: 'pro' })
    expect(stats).toMatchObject({ dropped: { before_send: 1 } })
    expect(told).toEqual([])
  })

  test('that throws drops the event, since what it would have hidden must not go out', async () => {
    const tracker = track({ beforeSend() { throw new Error('host') } })
    tracker.track('Upgraded')
    expect(await tracker.flush()).toMatchObject({ sent: 0, dropped: { invalid_payload: 1 } })
    expect(told.map(({ code }) => code)).toEqual(['invalid_payload'])
  })

  test.each([['a number', 42], ['a promise', Promise.resolve({})], ['nothing in it', {}]])(
    'that returns %s costs that event alone', async (_, answer) => {
      const tracker = track({ beforeSend: (event) => event.event === 'Odd' ? answer as any : event })
      tracker.track('Even')
      tracker.track('Odd')
      tracker.track('Even')
      const stats = await tracker.flush()
      expect(await names()).toEqual(['Even', 'Even'])
      expect(Object.values(stats.dropped)).toEqual([1])
    })
})

describe('events are sent', () => {
  test('when there are flushAt of them, in batches of maxBatchSize', async () => {
    const tracker = track({ flushAt: 7, flushInterval: 60_000, maxBatchSize: 3 })
    numbered(6).forEach((name) => tracker.track(name))
    await new Promise((done) => setTimeout(done, 50))
    expect(tracker.stats()).toMatchObject({ queued: 6, sent: 0 })
    expect(proxy.seen).toEqual([])

    tracker.track('Event 00006')
    await until(() => tracker.stats().sent === 7)
    expect(sizes()).toEqual([3, 3, 1])
    expect(await names()).toEqual(numbered(7))
  })

  test('fewer, after flushInterval', async () => {
    const tracker = track({ flushInterval: 50 })
    tracker.track('Opened')
    await until(() => tracker.stats().sent === 1)
    tracker.track('Opened')
    await until(() => tracker.stats().sent === 2)
    expect(sizes()).toEqual([1, 1])
  })

  test('in one request at a time and in order, however slow the answers are', async () => {
    let underWay = 0
    let most = 0
    const slow: typeof fetch = async (input, init) => {
      most = Math.max(most, ++underWay)
      await new Promise((done) => setTimeout(done, 5))
      return fetch(input, init).finally(() => underWay--)
    }
    const tracker = track({ fetch: slow, maxBatchSize: 5, flushAt: 1 })
    for (const name of numbered(60)) {
      tracker.track(name)
      if (name.endsWith('5')) await new Promise((done) => setTimeout(done, 3))
    }
    await tracker.flush()
    expect(most).toBe(1)
    expect(proxy.seen.flatMap(({ events }) => events.map(({ event }) => event))).toEqual(numbered(60))
  })

  test('in requests of at most half a megabyte', async () => {
    const tracker = track()
    for (const name of numbered(40)) tracker.track(name, { tags: { text: 'ä'.repeat(15_000) } })
    const stats = await tracker.flush()
    expect(stats).toMatchObject({ sent: 40 })
    expect(sizes()).toEqual([16, 16, 8])
    for (const { body } of proxy.seen) expect(body.length).toBeLessThan(512_000)
  })

  test('with flush, which resolves when they are there and does not wait for what comes later', async () => {
    const tracker = track({ flushAt: 1_000, flushInterval: 60_000, maxBatchSize: 10 })
    numbered(50).forEach((name) => tracker.track(name))
    const flushed = tracker.flush()
    const going = setInterval(() => tracker.track('Later'), 1)
    const stats = await flushed
    clearInterval(going)
    expect(stats.sent).toBeGreaterThanOrEqual(50)
    expect((await names()).filter((name) => name !== 'Later')).toEqual(numbered(50))
    expect(await tracker.flush()).toMatchObject({ queued: 0, inFlight: 0 })
    expect(await tracker.flush()).toMatchObject({ queued: 0, inFlight: 0 })
  })

  test('through a fetch of one\'s own, with the headers that PostgREST wants', async () => {
    const seen: any[] = []
    const tracker = track({ fetch: (async (url: string, init: any) => { seen.push([url, init]); return fetch(url, init) }) as typeof fetch })
    tracker.track('Opened')
    await tracker.flush()
    expect(seen).toMatchObject([[`${proxy.url}/rest/v1/rpc/track_events`, { method: 'POST', headers: {
      apikey: publishableKey, authorization: `Bearer ${publishableKey}`, 'x-api-key': 'as_local_acme_admin', 'content-type': 'application/json' } }]])
  })

  test('with waitUntil soon, and until they are there', async () => {
    // Given a runtime that is frozen when what it was asked to wait for has ended
    const work: Promise<unknown>[] = []
    const tracker = track({ waitUntil: (promise) => work.push(promise), flushInterval: 60_000 })
    tracker.track('Opened')
    tracker.track('Closed')
    await Promise.all(work)
    expect(await names()).toEqual(['Opened', 'Closed'])
    expect(work).toHaveLength(1)

    tracker.track('Opened again')
    await Promise.all(work)
    expect(work).toHaveLength(2)
    expect(await names()).toEqual(['Opened', 'Closed', 'Opened again'])
  })

  test('with a waitUntil that throws all the same', async () => {
    const tracker = track({ waitUntil() { throw new Error('outside of a request') } })
    tracker.track('Opened')
    await until(() => tracker.stats().sent === 1)
    expect(tracker.stats().dropped).toEqual({})
  })
})

describe('what goes wrong', () => {
  test('with an event is told with its code, and costs no other', async () => {
    const tracker = track()
    tracker.track('Mine')
    tracker.track('Theirs', { org: orgs.evil })
    tracker.track('x'.repeat(201))
    tracker.track('Mine too')
    const stats = await tracker.flush()

    expect(await names()).toEqual(['Mine', 'Mine too'])
    expect(told).toEqual([{ code: 'no_permission', event: 'Theirs' }, { code: 'invalid_payload', event: 'x'.repeat(201) }])
    expect(stats).toMatchObject({ tracked: 4, sent: 2, dropped: { no_permission: 1, invalid_payload: 1 } })
    expect(proxy.seen).toHaveLength(1)
  })

  test.each([
    ['no connection', 'reset'], ['no answer', 'hang'], ['503', { status: 503, body: 'upstream' }], ['500', { status: 500 }],
    ['408', { status: 408 }], ['429', { status: 429 }], ['an answer that is no JSON', { status: 200, body: '<html>' }],
    ['an answer about nothing', { status: 200, body: '{}' }], ['an answer about fewer events', { status: 200, body: '{"results":[{"result":"ok"}]}' }],
    ['an answer that is null', { status: 200, body: 'null' }], ['an answer of nonsense', { status: 200, body: '{"results":"ab"}' }],
    ['an answer of nulls', { status: 200, body: '{"results":[null,null]}' }],
  ] as const)('with a request is tried again: %s', async (_, deed) => {
    proxy.next(deed, deed)
    const tracker = track(deed === 'hang' ? { requestTimeout: 1_000 } : {})
    tracker.track('Opened')
    tracker.track('Closed')
    const stats = await tracker.flush()

    expect(await names()).toEqual(['Opened', 'Closed'])
    expect(stats).toMatchObject({ sent: 2, duplicates: 0, retries: 2, dropped: {} })
    expect(new Set(proxy.seen.map(({ events }) => events.map(({ event_id }) => event_id).join())).size).toBe(1)
    expect(told).toEqual([])
  })

  test('after the commit makes no second row', async () => {
    proxy.next('reset after')
    const tracker = track()
    tracker.track('Opened')
    tracker.track('Closed')
    expect(await tracker.flush()).toMatchObject({ sent: 0, duplicates: 2, retries: 1 })
    expect(await names()).toEqual(['Opened', 'Closed'])
  })

  test('waits longer each time, up to a bound, and never all clients at once', async () => {
    const waits: number[] = []
    const random = vi.spyOn(Math, 'random').mockReturnValue(0.5)
    const timers = vi.spyOn(globalThis, 'setTimeout')
    proxy.next(...Array.from({ length: 6 }, () => ({ status: 503 })))
    const tracker = track({ retryDelay: 20, maxRetryDelay: 200, requestTimeout: 7_777, flushInterval: 8_888 })
    tracker.track('Opened')
    await tracker.flush()
    for (const [, ms] of timers.mock.calls) if (ms && ms <= 200) waits.push(ms)
    timers.mockRestore()
    random.mockRestore()
    expect(waits.filter((ms) => [10, 20, 40, 80, 100].includes(ms))).toEqual([10, 20, 40, 80, 100, 100])
  })

  test.each([
    ['seconds', () => '1'],
    ['a date', () => new Date(Date.now() + 2_000).toUTCString()],
  ])('waits as long as the server asks, in %s', async (_, after) => {
    proxy.next({ status: 429, headers: { 'retry-after': after() } })
    const tracker = track({ flushAt: 1 })
    tracker.track('Opened')
    await until(() => proxy.seen.length === 1)
    // Meanwhile more comes, and hastens nothing
    numbered(50).forEach((name) => tracker.track(name))
    void tracker.flush()
    await until(() => proxy.seen.length === 2)
    const [first, second] = proxy.seen
    expect(second!.at - first!.at).toBeGreaterThanOrEqual(950)
    await tracker.flush()
    expect(await names()).toHaveLength(51)
  })

  test.each([
    [404, '{"code":"PGRST202","message":"Could not find the function"}', 'PGRST202'],
    [403, '{"code":"42501","message":"permission denied"}', '42501'],
    [401, '{"message":"Invalid API key"}', 'unauthenticated'],
    [410, 'gone', 'unexpected_answer'],
    [400, '{"code":"PT400","message":"invalid_payload","details":"No."}', 'invalid_payload'],
  ])('with a %d is final', async (status, body, code) => {
    proxy.next({ status, body })
    const tracker = track({ maxBatchSize: 2 })
    tracker.track('One')
    tracker.track('Two')
    tracker.track('Three')
    const stats = await tracker.flush()

    expect(stats).toMatchObject({ sent: 1, retries: 0, dropped: { [code]: 2 } })
    expect(told).toEqual([{ code, event: 'One' }, { code, event: 'Two' }])
    expect(sizes()).toEqual([2, 1])
    expect(await names()).toEqual(['Three'])
  })

  test('with too much at once is sent in halves, and what is too much alone is dropped', async () => {
    // Given a gateway that lets 2,000 bytes pass
    proxy.always(({ body }) => body.length > 2_000 ? { status: 413, body: 'too large' } : 'pass')
    const tracker = track()
    for (const name of numbered(8)) tracker.track(name, { tags: { text: 'x'.repeat(500) } })
    tracker.track('Too much', { tags: { text: 'x'.repeat(3_000) } })
    tracker.track('Last')
    const stats = await tracker.flush()

    expect(await names()).toEqual([...numbered(8), 'Last'])
    expect(told).toEqual([{ code: 'payload_too_large', event: 'Too much' }])
    expect(stats).toMatchObject({ sent: 9, retries: 0, dropped: { payload_too_large: 1 } })
  })

  test('for the database says what is too much as well', async () => {
    const tracker = track()
    tracker.track('Too much', { tags: { text: 'x'.repeat(40_000) } })
    tracker.track('Last')
    await tracker.flush()
    expect(told).toEqual([{ code: 'payload_too_large', event: 'Too much' }])
    expect(await names()).toEqual(['Last'])
  })

  test('for long makes the oldest go, which is told once, and hammers nobody', async () => {
    // Given a wait after the first failure that does not end by itself while the test lasts
    proxy.always({ status: 503 })
    const random = vi.spyOn(Math, 'random').mockReturnValue(0.9)
    const tracker = track({ maxQueueSize: 100, flushAt: 10, flushInterval: 5, retryDelay: 600_000, maxRetryDelay: 600_000 })
    for (const name of numbered(400)) {
      tracker.track(name)
      if (name.endsWith('0')) await new Promise((done) => setTimeout(done, 2))
    }
    random.mockRestore()
    expect(proxy.seen).toHaveLength(1)
    expect(told).toEqual([{ code: 'queue_full', event: 'Event 00000' }])

    proxy.always('pass')
    await tracker.trackNow('Now')
    expect(tracker.stats()).toMatchObject({ tracked: 401, sent: 100, dropped: { queue_full: 301 } })
    expect(await names()).toEqual([...numbered(400).slice(301), 'Now'])

    // And a second burst is told again
    proxy.always({ status: 503 })
    numbered(101).forEach((name) => tracker.track(name))
    expect(told).toHaveLength(2)
  })
})

describe('trackNow', () => {
  test('answers as the database does', async () => {
    const tracker = track()
    const event = { eventId: '01a1f3a0-4c00-7000-8000-000000000001' }
    expect(await tracker.trackNow('Paid', event)).toEqual({ eventId: event.eventId, duplicate: false, warnings: [] })
    expect(await tracker.trackNow('Paid', event)).toEqual({ eventId: event.eventId, duplicate: true, warnings: [] })
    expect(await tracker.trackNow('Paid', { app: 'com.evil.app' })).toMatchObject({
      warnings: ['The event was not grouped: the caller may not read the app \'com.evil.app\'.'] })
    expect(tracker.stats()).toMatchObject({ tracked: 3, sent: 2, duplicates: 1 })
  })

  test('throws the database\'s error, with its code, its details and the way out', async () => {
    const tracker = track()
    await expect(tracker.trackNow('Paid', { org: orgs.evil })).rejects.toMatchObject({
      name: 'TrackingError', code: 'no_permission', status: 403, message: expect.stringContaining(orgs.evil),
      details: `The caller may not read the organization ${orgs.evil}.`, hint: expect.stringContaining('Ask an admin') })
    expect(told).toEqual([])
    expect(tracker.stats()).toMatchObject({ tracked: 1, sent: 0, dropped: { no_permission: 1 } })
  })

  test('tries again a few times, and gives up', async () => {
    const tracker = track({ flushInterval: 60_000 })
    proxy.next('reset', { status: 503 }, 'reset after')
    expect(await tracker.trackNow('Paid')).toMatchObject({ duplicate: true })

    proxy.always('reset')
    await expect(tracker.trackNow('Paid')).rejects.toMatchObject({ code: 'network_error' })
    expect(proxy.seen).toHaveLength(4 + 4)
    proxy.always({ status: 503, body: 'upstream' })
    await expect(tracker.trackNow('Paid')).rejects.toMatchObject({ code: 'unexpected_answer', status: 503 })
  })

  test('does not wait where the server wants to be left alone for long', async () => {
    const tracker = track()
    proxy.next({ status: 429, headers: { 'retry-after': '3600' } })
    await expect(tracker.trackNow('Paid')).rejects.toMatchObject({ code: 'rate_limited', status: 429 })
    await expect(tracker.trackNow('Paid')).rejects.toMatchObject({ code: 'rate_limited' })
    expect(proxy.seen).toHaveLength(1)
  })

  test('does not wait out the pause of others, and keeps its place behind them', async () => {
    proxy.next({ status: 503 })
    const tracker = track({ flushAt: 1, retryDelay: 60_000, maxRetryDelay: 60_000 })
    tracker.track('Before')
    await until(() => tracker.stats().retries === 1)
    await tracker.trackNow('Now')
    expect(await names()).toEqual(['Before', 'Now'])
  })

  test('throws at once what can never be sent', async () => {
    const tracker = track()
    await expect(tracker.trackNow('Wrong', { tags: { n: 1n } })).rejects.toMatchObject({ code: 'invalid_payload' })
    tracker.optOut()
    await expect(tracker.trackNow('Paid')).rejects.toMatchObject({ code: 'opted_out' })
    tracker.optIn()
    await tracker.shutdown()
    await expect(tracker.trackNow('Paid')).rejects.toMatchObject({ code: 'closed' })
    expect(proxy.seen).toEqual([])
  })
})

describe('the group', () => {
  test('is for events of orgs, which wait for it; not for those of people and apps', async () => {
    const tracker = track({ catalog, flushInterval: 20 })
    tracker.track('Report Exported', { tags: { format: 'csv' } })
    tracker.track('Signed In')
    tracker.track('Bundle Uploaded', { app: 'com.demo.app' })
    tracker.track('Report Exported', { tags: { format: 'pdf' }, org: orgs.acme })
    await tracker.flush()
    expect(tracker.stats()).toMatchObject({ sent: 3, waiting: 1 })

    tracker.group(orgs.acme)
    tracker.track('Signed In')
    tracker.track('Report Exported', { tags: { format: 'csv' } })
    await tracker.flush()
    expect((await rows()).map(({ event, org_id, channel, icon }) => [event, org_id, channel, icon])).toEqual([
      ['Report Exported', orgs.acme, 'reports', '📄'], ['Signed In', null, 'sessions', null],
      ['Bundle Uploaded', null, 'default', null], ['Report Exported', orgs.acme, 'reports', '📄'],
      ['Signed In', null, 'sessions', null], ['Report Exported', orgs.acme, 'reports', '📄']])

    tracker.group(null)
    tracker.track('Report Exported', { tags: { format: 'csv' } })
    await tracker.flush()
    expect(tracker.stats()).toMatchObject({ waiting: 1 })
  })

  test('is carried by events of no kind where they name no app, and they do not wait for it', async () => {
    const tracker = track()
    tracker.track('Before')
    tracker.group(orgs.acme)
    tracker.track('After')
    tracker.track('Beta', { app: 'com.acme.beta' })
    tracker.track('Theirs', { app: 'com.evil.app' })
    await tracker.flush()
    expect((await rows()).map(({ event, org_id }) => [event, org_id])).toEqual([
      ['Before', null], ['After', orgs.acme], ['Beta', orgs.acme], ['Theirs', null]])
  })

  test('is waited for up to a bound', async () => {
    const tracker = track({ catalog, groupTimeout: 50 })
    tracker.track('Report Exported', { tags: { format: 'csv' } })
    await expect(tracker.trackNow('Report Exported', { tags: { format: 'csv' } })).rejects.toMatchObject({ code: 'no_group' })
    expect(told).toEqual([{ code: 'no_group', event: 'Report Exported' }])
    tracker.group(orgs.acme)
    expect(await tracker.flush()).toMatchObject({ sent: 0, waiting: 0, dropped: { no_group: 2 } })
  })

  test('leaves an event its time and its place', async () => {
    let now = Date.parse('2026-11-05T09:30:00Z')
    const tracker = track({ catalog, clock: () => now })
    const waiting = tracker.trackNow('Report Exported', { tags: { format: 'csv' } })
    now += 20_000
    tracker.group(orgs.acme)
    await waiting
    expect((await rows())[0]?.occurred_at).toEqual(new Date('2026-11-05T09:30:00Z'))
  })
})

describe('opting out', () => {
  test('drops what is queued, tracks no more, and can be undone', async () => {
    const tracker = track()
    tracker.track('Before')
    tracker.optOut()
    tracker.track('Out')
    expect(await tracker.flush()).toMatchObject({ tracked: 2, queued: 0, sent: 0, dropped: { opted_out: 2 } })

    tracker.optIn()
    tracker.track('In')
    await tracker.flush()
    expect(await names()).toEqual(['In'])
    expect(told).toEqual([])
  })

  test('ends a request under way', async () => {
    proxy.always('hang')
    const tracker = track({ flushAt: 1 })
    tracker.track('Opened')
    await until(() => proxy.seen.length === 1)
    tracker.optOut()
    expect(tracker.stats()).toMatchObject({ inFlight: 0, dropped: { opted_out: 1 } })
  })

  test.each(['DO_NOT_TRACK', 'ACTORSCOPE_DISABLED'])('is what %s=1 does', async (variable) => {
    for (const [value, sent] of [['1', 0], ['true', 0], ['0', 1], ['', 1], ['false', 1]] as const) {
      vi.stubEnv(variable, value)
      const tracker = track()
      vi.unstubAllEnvs()
      tracker.optIn()
      tracker.track('Opened')
      expect(await tracker.flush()).toMatchObject({ sent, dropped: sent ? {} : { opted_out: 1 } })
    }
  })

  test('is what disabled does, and optIn does not undo it', async () => {
    const tracker = track({ disabled: true })
    tracker.optIn()
    tracker.track('Opened')
    await expect(tracker.trackNow('Opened')).rejects.toMatchObject({ code: 'opted_out' })
    expect(await tracker.flush()).toMatchObject({ sent: 0, dropped: { opted_out: 2 } })
    expect(proxy.seen).toEqual([])
  })
})

describe('the end', () => {
  test('delivers everything that can be delivered in time', async () => {
    proxy.next({ status: 503 }, 'reset', 'reset after')
    const tracker = track({ flushInterval: 60_000 })
    numbered(250).forEach((name) => tracker.track(name))
    const stats = await tracker.shutdown()
    expect(stats).toMatchObject({ queued: 0, inFlight: 0, waiting: 0 })
    expect(stats.sent + stats.duplicates).toBe(250)
    expect(await names()).toEqual(numbered(250))
  })

  test('hastens an event that waits after a failure', async () => {
    proxy.next({ status: 503 })
    const tracker = track({ flushAt: 1, retryDelay: 60_000, maxRetryDelay: 60_000 })
    tracker.track('Opened')
    await until(() => tracker.stats().retries === 1)
    expect(await tracker.shutdown()).toMatchObject({ sent: 1 })
  })

  test('takes no longer than it may, and tells what is left', async () => {
    proxy.always('hang')
    const tracker = track({ catalog, flushAt: 1 })
    tracker.track('Signed In')
    tracker.track('Report Exported', { tags: { format: 'csv' } })
    const began = Date.now()
    const stats = await tracker.shutdown(200)
    expect(Date.now() - began).toBeLessThan(5_000)
    expect(stats).toMatchObject({ queued: 0, inFlight: 0, waiting: 0, dropped: { timeout: 1, no_group: 1 } })
    expect(told).toEqual([{ code: 'timeout', event: 'Signed In' }, { code: 'no_group', event: 'Report Exported' }])

    tracker.track('Signed In')
    expect(tracker.stats()).toMatchObject({ dropped: { timeout: 1, no_group: 1, closed: 1 } })
    expect(await tracker.shutdown()).toEqual(tracker.stats())
  })

  test('of a flush with a bound leaves the events queued, in their order', async () => {
    proxy.always('hang')
    const tracker = track({ maxBatchSize: 2 })
    numbered(5).forEach((name) => tracker.track(name))
    expect(await tracker.flush(100)).toMatchObject({ queued: 5, inFlight: 0, sent: 0 })
    proxy.always('pass')
    await tracker.flush()
    expect(await names()).toEqual(numbered(5))
    expect(told).toEqual([])
  })

  test('can be made while nothing can be awaited, through a function that answers at once', async () => {
    // Given three batches, of which the first is under way and gets no answer
    proxy.always('hang')
    const tracker = track({ maxBatchSize: 2, flushAt: 5 })
    numbered(5).forEach((name) => tracker.track(name))
    await until(() => proxy.seen.length === 1)
    const posts: any[] = []
    tracker.flushSync((url, { headers, body }) => {
      posts.push({ url, headers, events: JSON.parse(body).v2 })
      const results = posts.at(-1).events.map(() => ({ result: 'ok' }))
      return posts.length === 3 ? undefined : { status: 200, body: JSON.stringify({ results }) }
    })
    expect(posts.map(({ events }) => events.map(({ event }: any) => event))).toEqual([
      ['Event 00000', 'Event 00001'], ['Event 00002', 'Event 00003'], ['Event 00004']])
    expect(posts[0]).toMatchObject({ url: `${proxy.url}/rest/v1/rpc/track_events`, headers: { 'x-api-key': 'as_local_acme_admin' } })
    expect(tracker.stats()).toMatchObject({ sent: 4, queued: 1, inFlight: 0 })
  })
})
