import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { orgs, people } from './demo.ts'
import { startWebhook, type Receiver, type VerifiedWebhook } from './receivers.ts'
import { createSink, deadLetters, deliver, open, retryNow, rewind, trackIn, writeEvent, type Track } from './sending.ts'
import { createWorld, type World } from './world.ts'

const secret = `whsec_${Buffer.from('a secret of twenty-four!').toString('base64')}`
const environment = { ACTORSCOPE_SINK_HOOK_SECRET: secret }

let world: World
let track: Track
let hooks: Receiver<VerifiedWebhook>

beforeAll(async () => {
  world = await createWorld()
  track = trackIn(world)
  hooks = await startWebhook(secret)
})
beforeEach(async () => {
  await world.sql`delete from tracking.sinks`
  await world.sql`truncate public.events`
  hooks.options = {}
  hooks.clear()
  await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
})
afterEach(() => expect(hooks.breaches).toEqual([]))
afterAll(async () => {
  await hooks?.close()
  await world?.close()
})

test('a webhook is verified by the package that its specification comes with', async () => {
  await track('ada@acme.test', {
    event: 'Report Exported', org_id: orgs.acme, description: 'As CSV', nonPersonTags: { os: 'linux' },
    tags: { app_id: 'com.acme.app', format: 'csv' } })
  expect(await send()).toBeNull()
  const [{ id, timestamp, payload }] = hooks.taken as [VerifiedWebhook]
  expect(Math.abs(timestamp - Date.now() / 1000)).toBeLessThan(60)
  expect(payload).toEqual({
    type: 'Report Exported',
    timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    data: {
      event_id: id, occurred_at: payload.timestamp, received_at: expect.any(String), source: 'client',
      org_id: orgs.acme, actor_id: people.ada, app_id: 'com.acme.app', api_key_id: null,
      event: 'Report Exported', channel: 'default', description: 'As CSV', icon: null, parser: null, notify: false,
      tags: { app_id: 'com.acme.app', org_id: orgs.acme, format: 'csv' }, context: { os: 'linux' }, tracking_version: 2,
    },
  })
})

test('it keeps its id and body from try to try, and each is signed anew', async () => {
  await track('ada@acme.test', { event: 'First' })
  hooks.options = { fault: () => ({ status: 503 }) }
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - 200_000 })
  expect(await send().finally(() => vi.useRealTimers())).toMatchObject({ kind: 'retry', status: 503 })
  hooks.options = {}
  await retryNow(world.sql, 'hook')
  await send()
  await rewind(world.sql, 'hook')
  await send()
  const headers = (name: string) => hooks.requests.map((request) => request.headers[name])
  expect(new Set(hooks.requests.map(({ text }) => text)).size).toBe(1)
  expect(new Set(headers('webhook-id'))).toEqual(new Set([hooks.taken[0]!.id]))
  expect(headers('webhook-timestamp')[0]).not.toBe(headers('webhook-timestamp').at(-1))
  expect(headers('webhook-signature')[0]).not.toBe(headers('webhook-signature').at(-1))
})

test('it follows only where the one before it was taken', async () => {
  await track('ada@acme.test', ...['1', '2', '3', '4'].map((event) => ({ event })))
  const isSecond = (body: unknown) => (body as { type: string }).type === '2'
  hooks.options = { fault: ({ body }, n) => n < 3 && isSecond(body) ? { status: 500 } : undefined }
  while (await send()) await retryNow(world.sql, 'hook')
  expect(types()).toEqual(['1', '2', '3', '4'])
})

test('one that the receiver refuses for good holds up no other', async () => {
  await track('ada@acme.test', ...['1', 'Poison', '3'].map((event) => ({ event })))
  hooks.options = { poison: ({ payload }) => payload.type === 'Poison' }
  expect(await send()).toBeNull()
  expect(types()).toEqual(['1', '3'])
  expect(await deadLetters(world.sql, 'hook')).toEqual([['Poison', '422 poison']])
  hooks.breaches.length = 0
})

test('it is not sent where a redirect leads', async () => {
  const elsewhere = await startWebhook(secret)
  await track('ada@acme.test', { event: 'First' })
  hooks.options = { fault: () => ({ status: 307, headers: { location: `${elsewhere.url}/hooks` } }) }
  expect(await send()).toMatchObject({ kind: 'retry', status: 307, retryAfterMs: 300_000 })
  expect(elsewhere.requests).toEqual([])
  await elsewhere.close()
})

test('an event that a client calls as if somebody had been erased is handed back, and a service\'s is sent', async () => {
  await track('ada@acme.test', { event: 'actor.erased' }, { event: 'Actor erased' }, { event: 'org.erased' })
  await writeEvent(world.sql, { event: 'org.erased', actor_id: people.ada })
  expect(await send()).toBeNull()
  expect(types()).toEqual(['Actor erased', 'org.erased'])
  expect(await deadLetters(world.sql, 'hook')).toEqual(['actor.erased', 'org.erased'].map((name) => [
    name, `"${name}" says that somebody was erased: a client's event may not have that name.`]))
})

test('its secret must be one', async () => {
  const batch = { sink: 'hook', kind: 'webhook', settings: { url: `${hooks.url}/hooks` } }
  await expect(open(world.sql, batch, { environment: { ACTORSCOPE_SINK_HOOK_SECRET: 'nö base64' } }))
    .rejects.toThrow('The sink "hook" has a secret that is not base64.')
})

const send = () => deliver(world.sql, 'hook', { environment })
const types = () => hooks.taken.map(({ payload }) => payload.type)
