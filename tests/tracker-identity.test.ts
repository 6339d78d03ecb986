import { createClient, type SupabaseClient, type SupabaseClientOptions } from '@supabase/supabase-js'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import ws from 'ws'
import { publishableKey } from '../src/api.ts'
import { createTracker, defineCatalog, type PersistentQueue, type Tracker, type TrackerOptions } from '../src/tracker.ts'
import { orgs, people } from './demo.ts'
import { startProxy, until, type Proxy } from './tracker-proxy.ts'
import { createWorld, signToken, type World } from './world.ts'

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
  for (const tracker of trackers.splice(0)) {
    tracker.optOut()
    await tracker.shutdown(1_000)
  }
  await proxy.close()
  await world.sql`truncate events`
})

const transport = ws as never
/** A supabase-js client as a page has one, through the proxy. */
function connect(options: SupabaseClientOptions<'public'> = {}): SupabaseClient {
  return createClient(proxy.url, publishableKey, { auth: { autoRefreshToken: false }, realtime: { transport }, ...options })
}

function track(from: Parameters<typeof createTracker>[0], options: TrackerOptions<any> = {}): Tracker {
  const tracker = createTracker(from, {
    retryDelay: 5, maxRetryDelay: 50, onError: (error, event) => told.push({ code: error.code, event: event?.event }), ...options })
  trackers.push(tracker)
  return tracker
}

const signIn = (client: SupabaseClient, email: string) => client.auth.signInWithPassword({ email, password: 'password' })
const names = Object.fromEntries(Object.entries(people).map(([name, id]) => [id, name]))
const rows = async () => (await world.sql`select event, actor_id from events order by event_id`).map(({ event, actor_id }) => `${event} by ${names[actor_id] ?? actor_id}`)
const now = () => Math.floor(Date.now() / 1000)
const tokenOf = (id: string, seconds = 3600) => signToken({ sub: id, role: 'authenticated', aud: 'authenticated', exp: now() + seconds, iat: now() - 10 })

test('two people at one client, one after the other, never get each other\'s events', async () => {
  // Given a client, and requests that fail for a while, so that everything is still queued when the person changes
  proxy.always({ status: 503 })
  const client = connect()
  const tracker = track(client, { flushAt: 1 })
  await signIn(client, 'ada@acme.test')
  for (let i = 0; i < 30; i++) tracker.track(`Ada ${i}`)
  await until(() => tracker.stats().retries > 0)
  await client.auth.signOut()
  await signIn(client, 'eve@evil.test')
  for (let i = 0; i < 30; i++) tracker.track(`Eve ${i}`)
  await client.auth.signOut()
  await signIn(client, 'ada@acme.test')
  for (let i = 30; i < 35; i++) tracker.track(`Ada ${i}`)

  proxy.always('pass')
  const stats = await tracker.flush()
  expect(stats).toMatchObject({ sent: 65, dropped: {} })
  const all = await rows()
  expect(all).toEqual([...Array.from({ length: 35 }, (_, i) => `Ada ${i} by ada`), ...Array.from({ length: 30 }, (_, i) => `Eve ${i} by eve`)]
    .sort((a, b) => all.indexOf(a) - all.indexOf(b)))
  // And no request held events of two people
  for (const { events } of proxy.seen) expect(new Set(events.map(({ event }) => event.slice(0, 3))).size).toBe(1)
})

test('what was tracked before anybody signed in is the first one\'s who does', async () => {
  const client = connect()
  const tracker = track(client, { flushInterval: 10, flushAt: 2 })
  tracker.track('Landed')
  tracker.track('Clicked Sign In')
  const stats = await tracker.flush()
  expect(stats).toMatchObject({ waiting: 2, sent: 0 })
  await new Promise((done) => setTimeout(done, 50))
  expect(proxy.seen).toEqual([])

  await signIn(client, 'ada@acme.test')
  await until(() => tracker.stats().sent === 2)
  await client.auth.signOut()
  tracker.track('Said Goodbye')
  await signIn(client, 'bob@acme.test')
  await tracker.flush()
  expect(await rows()).toEqual(['Landed by ada', 'Clicked Sign In by ada', 'Said Goodbye by bob'])
})

test('what was tracked while the session was still being loaded is its owner\'s', async () => {
  // Given a session in a storage that takes its time, as a phone's does
  const kept = new Map<string, string>()
  const storage = {
    getItem: async (key: string) => { await new Promise((done) => setTimeout(done, 30)); return kept.get(key) ?? null },
    setItem: async (key: string, value: string) => { kept.set(key, value) },
    removeItem: async (key: string) => { kept.delete(key) },
  }
  await signIn(connect({ auth: { storage, autoRefreshToken: false } }), 'ada@acme.test')

  const tracker = track(connect({ auth: { storage, autoRefreshToken: false } }))
  tracker.track('Page Viewed')
  expect(tracker.stats()).toMatchObject({ waiting: 1 })
  expect(await tracker.flush()).toMatchObject({ sent: 1 })
  expect(await rows()).toEqual(['Page Viewed by ada'])
})

test('nobody being there is told to who waits for an answer', async () => {
  const tracker = track(connect())
  await expect(tracker.trackNow('Landed')).rejects.toMatchObject({ code: 'unauthenticated' })
  const nobody = track({ url: proxy.url, publishableKey })
  await expect(nobody.trackNow('Landed')).rejects.toMatchObject({ code: 'unauthenticated', hint: 'Sign in, or send an API key in the header x-api-key.' })
})

test('an API key has an actor of its own, and a bad one is refused once, not again and again', async () => {
  const tracker = track({ url: `${proxy.url}/`, publishableKey, apiKey: 'as_local_demo_app' })
  tracker.track('Uploaded', { app: 'com.demo.app' })
  await tracker.flush()
  expect(await rows()).toEqual(['Uploaded by ada'])

  const bad = track({ url: proxy.url, publishableKey, apiKey: 'as_local_revoked' })
  bad.track('Uploaded')
  expect(await bad.flush()).toMatchObject({ dropped: { invalid_api_key: 1 }, retries: 0 })
  expect(told).toEqual([{ code: 'invalid_api_key', event: 'Uploaded' }])
  expect(proxy.seen).toHaveLength(2)
})

test('a client\'s own headers go with its events: an API key, or whoever called an edge function', async () => {
  track(connect({ global: { headers: { 'X-Api-Key': 'as_local_acme_admin' } } })).track('By key')
  track(connect({ global: { headers: { Authorization: `Bearer ${tokenOf(people.bob)}` } } })).track('By caller')
  await Promise.all(trackers.map((tracker) => tracker.flush()))
  expect((await rows()).sort()).toEqual(['By caller by bob', 'By key by ada'])
})

test('a client made for the service role needs nobody to sign in', async () => {
  const service = world.service()
  const tracker = track(service)
  tracker.track('Invoiced', { actor: people.bob })
  expect(await tracker.flush()).toMatchObject({ sent: 1 })
  expect(await rows()).toEqual(['Invoiced by bob'])
})

test.each(['a client with third-party sign-in', 'a connection with accessToken'])('%s asks for the token of each event', async (kind) => {
  // Given a program whose person changes, and a token that takes a moment
  let person: string | undefined = people.ada
  const accessToken = async () => {
    const token = person && tokenOf(person)
    await new Promise((done) => setTimeout(done, 5))
    return token ?? null
  }
  const tracker = track(kind.startsWith('a client') ? connect({ accessToken }) : { url: proxy.url, publishableKey, accessToken }, { flushInterval: 20 })
  tracker.track('First')
  person = people.eve
  tracker.track('Second')
  person = undefined
  tracker.track('Third')
  await tracker.flush()
  person = people.bob
  tracker.track('Fourth')
  await until(() => tracker.stats().sent === 4)

  const all = await rows()
  expect(all).toEqual(expect.arrayContaining(['First by ada', 'Second by eve', 'Fourth by bob']))
  expect(all).toContain('Third by bob')
})

test('a token that is a text is everybody\'s who uses it', async () => {
  const tracker = track({ url: proxy.url, publishableKey, accessToken: tokenOf(people.cyd) })
  tracker.track('Opened')
  await tracker.flush()
  expect(await rows()).toEqual(['Opened by cyd'])
})

test('a function that fails to give a token is told, and what waits for it is not lost', async () => {
  let fails = true
  const tracker = track({ url: proxy.url, publishableKey, accessToken: () => { if (fails) throw new Error('vault'); return tokenOf(people.ada) } }, { flushInterval: 10 })
  tracker.track('Opened')
  expect(await tracker.flush()).toMatchObject({ waiting: 1 })
  expect(told[0]).toEqual({ code: 'unauthenticated', event: undefined })
  fails = false
  await until(() => tracker.stats().sent === 1)
  expect(await rows()).toEqual(['Opened by ada'])
})

test('a token that ran out is asked for once more, and the events go with the fresh one', async () => {
  let token = tokenOf(people.ada, -60)
  let asked = 0
  const tracker = track({ url: proxy.url, publishableKey, accessToken: () => {
    if (asked++ === 2) token = tokenOf(people.ada)
    return token
  } }, { flushInterval: 60_000 })
  tracker.track('Opened')
  expect(await tracker.flush()).toMatchObject({ sent: 1, dropped: {} })
  expect(proxy.seen).toHaveLength(2)
  expect(await rows()).toEqual(['Opened by ada'])
})

test('a token that ran out, with no fresh one to be had, is refused for good', async () => {
  const tracker = track({ url: proxy.url, publishableKey, accessToken: tokenOf(people.ada, -60) })
  tracker.track('Opened')
  tracker.track('Closed')
  expect(await tracker.flush()).toMatchObject({ dropped: { unauthenticated: 2 }, retries: 0 })
  expect(proxy.seen).toHaveLength(1)

  // Nor is a new token a way out where each one is refused
  const minting = track({ url: proxy.url, publishableKey, accessToken: () => signToken({ sub: people.ada, exp: now() + 60, jti: Math.random() }, 'not the secret of this project') })
  minting.track('Opened')
  expect(await minting.flush()).toMatchObject({ dropped: { unauthenticated: 1 } })
  expect(proxy.seen).toHaveLength(3)
})

test('a session that ran out is refreshed before its events go', async () => {
  const client = connect()
  await signIn(client, 'ada@acme.test')
  const tracker = track(client)
  await tracker.flush()
  // Given a session whose token ran out while the computer slept
  const { data: { session } } = await client.auth.getSession()
  const storageKey = (client as any).storageKey
  const storage = (client.auth as any).storage
  await storage.setItem(storageKey, JSON.stringify({ ...session, access_token: tokenOf(people.ada, -60), expires_at: now() - 60 }))
  tracker.track('Woke Up')
  expect(await tracker.flush()).toMatchObject({ sent: 1 })
  expect(await rows()).toEqual(['Woke Up by ada'])
})

test('what somebody left whose token ran out goes when they are back, where there is a persistent queue', async () => {
  const kept = memoryQueue()
  const client = connect()
  await signIn(client, 'ada@acme.test')
  const tracker = track(client, { queue: kept, flushAt: 1_000 })
  await tracker.flush()
  tracker.track('Ada')
  // Given that ada's token is refused by the time it is sent, and eve is there
  proxy.next({ status: 401, body: '{"code":"PGRST303","message":"JWT expired"}' })
  await client.auth.signOut()
  await signIn(client, 'eve@evil.test')
  tracker.track('Eve')
  expect(await tracker.flush()).toMatchObject({ kept: 1, sent: 1, dropped: {} })
  expect(await rows()).toEqual(['Eve by eve'])

  await client.auth.signOut()
  await signIn(client, 'ada@acme.test')
  await until(() => tracker.stats().sent === 2)
  expect((await rows()).sort()).toEqual(['Ada by ada', 'Eve by eve'])
  expect(tracker.stats()).toMatchObject({ tracked: 2, adopted: 1, kept: 1, sent: 2 })
  expect(kept.events.size).toBe(0)
})

test('an organization that one person chose is not for the waiting events of another', async () => {
  const catalog = defineCatalog({ 'Report Exported': { scope: 'org' } })
  const client = connect()
  await signIn(client, 'ada@acme.test')
  const tracker = track(client, { catalog, groupTimeout: 500 })
  tracker.track('Report Exported')
  await tracker.flush()
  await client.auth.signOut()
  await signIn(client, 'eve@evil.test')
  tracker.group(orgs.evil)
  tracker.track('Report Exported')
  await until(() => told.length === 1)
  expect(await tracker.flush()).toMatchObject({ sent: 1, dropped: { no_group: 1 } })
  expect(await rows()).toEqual(['Report Exported by eve'])
})

/** A persistent queue that does not outlive anything, to look into. */
function memoryQueue(): PersistentQueue & { events: Map<string, any> } {
  const events = new Map<string, any>()
  const mine = new Set<string>()
  return {
    events,
    optedOut: false,
    open() {},
    put(event) { events.set(event.key, event); mine.add(event.key) },
    remove(key) { events.delete(key); mine.delete(key) },
    release(key) { mine.delete(key) },
    adopt(identity, max) {
      const found = [...events.values()].filter((event) => !mine.has(event.key) && (!event.identity || event.identity === identity)).slice(0, max)
      for (const { key } of found) mine.add(key)
      return found
    },
    clear() { events.clear() },
  }
}
