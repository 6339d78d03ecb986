import { LogSnag } from '@logsnag/node'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { logSnagTags } from '../src/logsnag.ts'
import { orgs, people } from './demo.ts'
import { startLogSnag, type LoggedLog, type Receiver } from './receivers.ts'
import { createSink, deliver, rewind, trackIn, type Track } from './sending.ts'
import { createWorld, type World } from './world.ts'

const environment = { LOGSNAG_TOKEN: 'lst_4b7d1f0e' }

let world: World
let track: Track
let logsnag: Receiver<LoggedLog>

beforeAll(async () => {
  world = await createWorld()
  track = trackIn(world)
  logsnag = await startLogSnag(environment.LOGSNAG_TOKEN, 'demo')
})
beforeEach(async () => {
  await world.sql`delete from tracking.sinks`
  await world.sql`truncate public.events`
  logsnag.options = {}
  logsnag.clear()
  await createSink(world.sql, 'logsnag', 'logsnag', { project: 'demo', host: logsnag.url })
})
afterEach(() => expect(logsnag.breaches).toEqual([]))
afterAll(async () => {
  await logsnag?.close()
  await world?.close()
})

// The package's own tags would be refused: LogSnag takes keys of lower-case letters and dashes alone.
test('gets the request that its own package sends, but for the keys of tags and the event\'s id', async () => {
  await track('ada@acme.test', {
    event: 'Report Exported', channel: 'reports', description: '**As CSV**', icon: '📄', parser: 'markdown',
    notify: true, org_id: orgs.acme, tags: { app_id: 'com.acme.app', pages: 3, paid: true } })
  await track('ada@acme.test', {
    event: 'Old', tracking_version: 1, user_id: orgs.acme, timestamp: '2026-11-05T09:30:00.999Z' })
  await deliver(world.sql, 'logsnag', { environment })
  const ours = logsnag.requests.splice(0)

  await asTheirs(async (client) => {
    await client.track({
      channel: 'reports', event: 'Report Exported', description: '**As CSV**', icon: '📄', parser: 'markdown',
      notify: true, user_id: people.ada, timestamp: timeOf(ours[0]!.body), tags: { pages: 3, paid: true } })
    await client.track({
      channel: 'default', event: 'Old', notify: false, user_id: orgs.acme, tags: {},
      timestamp: new Date('2026-11-05T09:30:00.999Z') })
  })
  const theirs = logsnag.requests
  const own = [{ 'app-id': 'com.acme.app', 'org-id': orgs.acme }, { 'org-id': orgs.acme }]
  for (const [n, { method, path, headers, body }] of theirs.entries()) {
    expect([ours[n]!.method, ours[n]!.path]).toEqual([method, path])
    for (const name of ['content-type', 'authorization']) expect(ours[n]!.headers[name]).toBe(headers[name])
    const { tags, ...rest } = body as LoggedLog
    expect(ours[n]!.body).toEqual({ ...rest, tags: { ...tags, ...own[n], 'event-id': expect.any(String) } })
  }
  expect(theirs).toHaveLength(2)
})

test('gets the same bytes on every try and in a replay', async () => {
  await track('ada@acme.test', { event: 'First', tags: { n: 1 } })
  logsnag.options = { fault: (_, n) => [{ status: 500 }, { cut: 'after' } as const][n] }
  expect(await deliver(world.sql, 'logsnag', { environment })).toBeNull()
  await rewind(world.sql, 'logsnag')
  await deliver(world.sql, 'logsnag', { environment })
  expect(logsnag.requests).toHaveLength(4)
  expect(new Set(logsnag.requests.map(({ text }) => text)).size).toBe(1)
})

test('is not sent what it could not show', async () => {
  await track('ada@acme.test',
    {
      event: 'Odd', channel: 'Ünd now_THIS', icon: 'house', parser: 'html', description: '',
      tags: { event_id: 'mine', 'event-id': 'mine too' } },
    { event: 'Even', channel: '日本', icon: ':moneybag:' },
    { event: 'Icon', icon: '🛠️' }, { event: 'Icons', icon: '🎉🎉' })
  expect(await deliver(world.sql, 'logsnag', { environment })).toBeNull()
  const common = { project: 'demo', notify: false, user_id: people.ada }
  expect(logsnag.taken.map(({ tags, timestamp, ...log }) => log)).toEqual([
    { ...common, channel: 'nd-now-this', event: 'Odd' },
    { ...common, channel: 'default', event: 'Even', icon: ':moneybag:' },
    { ...common, channel: 'default', event: 'Icon', icon: '🛠️' },
    { ...common, channel: 'default', event: 'Icons' }])
  expect(logsnag.taken[0]!.tags).toEqual({
    'event-id': expect.stringMatching(/^[0-9a-f-]{36}$/), 'event-id-x': 'mine too' })
})

test.each([
  [{ app_id: 'a', durationMs2: 1, 'X-Y': true }, { 'app-id': 'a', 'duration-ms-two': 1, 'x-y': true }],
  [{ step1: 1, step2: 2, step_1: 3 }, { 'step-one': 1, 'step-two': 2, 'step-one-x': 3 }],
  [{ a: 1, A: 2, _a: 3, 'a-x': 4 }, { a: 1, 'a-x': 2, 'a-xx': 3, 'a-x-x': 4 }],
  [{ 日本: 'Japan', '': 'none' }, { tag: 'Japan', 'tag-x': 'none' }],
  [{ none: null, list: [1, 'b'], deep: { x: 1 } }, { list: '[1,"b"]', deep: '{"x":1}' }],
])('takes the tags %j as %j', (tags, taken) => {
  expect(logSnagTags(tags)).toEqual(taken)
})

/** Has LogSnag's own package speak to the receiver. */
async function asTheirs(work: (client: LogSnag) => Promise<void>): Promise<void> {
  const { fetch } = globalThis
  vi.stubGlobal('fetch', (url: string, init: RequestInit) =>
    fetch(url.replace('https://api.logsnag.com', logsnag.url), init))
  await work(new LogSnag({ token: environment.LOGSNAG_TOKEN, project: 'demo' })).finally(() => vi.unstubAllGlobals())
}

const timeOf = (body: unknown) => new Date((body as { timestamp: number }).timestamp * 1000)
