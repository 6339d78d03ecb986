import { execFile } from 'node:child_process'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { LogSnag } from '@logsnag/node'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { logSnagTags } from '../src/logsnag.ts'
import { parseRetryAfter, SinkError, type LoggedEvent } from '../src/sink.ts'
import { orgs, people } from './demo.ts'
import { startBento, startLogSnag, startPostHog, startWebhook, type Fault, type LoggedLog, type Receiver, type VerifiedWebhook } from './receivers.ts'
import { createSink, deadLetters, deliver, lease, open, retryNow, rewind } from './sending.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

const secret = `whsec_${Buffer.from('a secret of twenty-four!').toString('base64')}`
const environment = {
  ACTORSCOPE_SINK_HOOK_SECRET: secret, LOGSNAG_TOKEN: 'lst_4b7d1f0e', POSTHOG_API_KEY: 'phc_f8a7"c3b1', BENTO_PUBLISHABLE_KEY: 'pub_77ab', BENTO_SECRET_KEY: 'sec_91cd"é/',
}
const site = { siteUuid: 'site-1', publishableKey: environment.BENTO_PUBLISHABLE_KEY, secretKey: 'sec_91cd"é/', requestsPerMinute: 10_000 }

let world: World
let hooks: Receiver<VerifiedWebhook>
let logsnag: Receiver<LoggedLog>
let folder: Awaited<ReturnType<typeof temporaryFolder>>

beforeAll(async () => {
  world = await createWorld()
  hooks = await startWebhook(secret)
  logsnag = await startLogSnag(environment.LOGSNAG_TOKEN, 'demo')
  folder = await temporaryFolder()
})
beforeEach(async () => {
  await world.sql`delete from tracking.sinks`
  await world.sql`truncate public.events`
  for (const receiver of [hooks, logsnag]) {
    receiver.options = {}
    receiver.clear()
  }
})
afterAll(async () => {
  await Promise.all([hooks.close(), logsnag.close(), folder.remove(), world.close()])
})

describe('a webhook', () => {
  afterEach(() => expect(hooks.breaches).toEqual([]))

  test('is verified by the package that its specification comes with', async () => {
    await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
    await track({ event: 'Report Exported', org_id: orgs.acme, description: 'As CSV', tags: { app_id: 'com.acme.app', format: 'csv' }, nonPersonTags: { os: 'linux' } })
    expect(await deliver(world.sql, 'hook', { environment })).toBeNull()
    const [{ id, timestamp, payload }] = hooks.taken as [VerifiedWebhook]
    expect(Math.abs(timestamp - Date.now() / 1000)).toBeLessThan(60)
    expect(payload).toEqual({
      type: 'Report Exported',
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      data: {
        event_id: id, occurred_at: payload.timestamp, org_id: orgs.acme, actor_id: people.ada, app_id: 'com.acme.app', api_key_id: null,
        event: 'Report Exported', channel: 'default', description: 'As CSV', icon: null, parser: null, notify: false,
        tags: { app_id: 'com.acme.app', org_id: orgs.acme, format: 'csv' }, context: { os: 'linux' }, tracking_version: 2, source: 'client', received_at: expect.any(String),
      },
    })
  })

  test('keeps its id and body from try to try, and has each signed anew', async () => {
    await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
    await track({ event: 'First' })
    hooks.options = { fault: () => ({ status: 503 }) }
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - 200_000 })
    expect(await deliver(world.sql, 'hook', { environment }).finally(() => vi.useRealTimers())).toMatchObject({ kind: 'retry', status: 503 })
    hooks.options = {}
    await retryNow(world.sql, 'hook')
    await deliver(world.sql, 'hook', { environment })
    await rewind(world.sql, 'hook')
    await deliver(world.sql, 'hook', { environment })
    const headers = (name: string) => hooks.requests.map((request) => request.headers[name])
    expect(new Set(hooks.requests.map(({ text }) => text)).size).toBe(1)
    expect(new Set(headers('webhook-id'))).toEqual(new Set([hooks.taken[0]!.id]))
    expect(headers('webhook-timestamp')[0]).not.toBe(headers('webhook-timestamp').at(-1))
    expect(headers('webhook-signature')[0]).not.toBe(headers('webhook-signature').at(-1))
  })

  test('follows only where the one before it was taken', async () => {
    await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
    await track(...['1', '2', '3', '4'].map((event) => ({ event })))
    hooks.options = { fault: ({ body }, n) => n < 3 && (body as { type: string }).type === '2' ? { status: 500 } : undefined }
    while (await deliver(world.sql, 'hook', { environment })) await retryNow(world.sql, 'hook')
    expect(hooks.taken.map(({ payload }) => payload.type)).toEqual(['1', '2', '3', '4'])
  })

  test('that the receiver refuses for good holds up no other', async () => {
    await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
    await track(...['1', 'Poison', '3'].map((event) => ({ event })))
    hooks.options = { poison: ({ payload }) => payload.type === 'Poison' }
    expect(await deliver(world.sql, 'hook', { environment })).toBeNull()
    expect(hooks.taken.map(({ payload }) => payload.type)).toEqual(['1', '3'])
    expect(await deadLetters(world.sql, 'hook')).toEqual([['Poison', '422 poison']])
    hooks.breaches.length = 0
  })

  test('is not sent where a redirect leads', async () => {
    await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
    await track({ event: 'First' })
    hooks.options = { fault: () => ({ status: 307, headers: { location: `${logsnag.url}/elsewhere` } }) }
    expect(await deliver(world.sql, 'hook', { environment })).toMatchObject({ kind: 'retry', status: 307, retryAfterMs: 300_000 })
    expect(logsnag.requests).toEqual([])
  })

  test('needs a secret that is one', async () => {
    const batch = { sink: 'hook', kind: 'webhook', settings: { url: `${hooks.url}/hooks` } }
    await expect(open(world.sql, batch, { environment: { ACTORSCOPE_SINK_HOOK_SECRET: 'nö base64' } })).rejects.toThrow('The sink "hook" has a secret that is not base64.')
  })
})

describe('LogSnag', () => {
  afterEach(() => expect(logsnag.breaches).toEqual([]))

  test('gets what its own package would have sent, but for the tags\' keys and the event\'s id', async () => {
    await createSink(world.sql, 'logsnag', 'logsnag', { project: 'demo', host: logsnag.url })
    await track({ event: 'Report Exported', channel: 'reports', description: '**As CSV**', icon: '📄', parser: 'markdown', notify: true, org_id: orgs.acme, tags: { app_id: 'com.acme.app', pages: 3, paid: true } })
    const event = (await lease(world.sql, 'logsnag'))!.events[0]!
    await (await open(world.sql, { sink: 'logsnag', kind: 'logsnag', settings: { project: 'demo', host: logsnag.url } }, { environment })).send([event], AbortSignal.timeout(10_000))
    const [ours] = logsnag.taken.splice(0)

    const theirsTo = globalThis.fetch
    vi.stubGlobal('fetch', (url: string, init: RequestInit) => theirsTo(url.replace('https://api.logsnag.com', logsnag.url), init))
    await new LogSnag({ token: environment.LOGSNAG_TOKEN, project: 'demo' }).track({
      channel: event.channel, event: event.event, description: event.description!, icon: event.icon!, parser: 'markdown', notify: event.notify,
      user_id: event.actor_id!, timestamp: new Date(event.occurred_at), tags: { pages: 3, paid: true },
    }).finally(() => vi.unstubAllGlobals())
    const { tags: ourTags, ...rest } = ours!
    const { tags: theirTags, ...theirs } = logsnag.taken[0]!
    expect(rest).toEqual(theirs)
    expect(ourTags).toEqual({ ...theirTags, 'event-id': event.event_id, 'app-id': 'com.acme.app', 'org-id': orgs.acme })
  })

  test('is not sent what it could not show', async () => {
    await createSink(world.sql, 'logsnag', 'logsnag', { project: 'demo', host: logsnag.url })
    await track(
      { event: 'Odd', channel: 'Ünd now_THIS', icon: 'house', parser: 'html', description: '', tags: { event_id: 'mine', 'event-id': 'mine too' } },
      { event: 'Even', channel: '日本', icon: ':moneybag:' }, { event: 'Icon', icon: '🛠️' }, { event: 'Icons', icon: '🎉🎉' })
    expect(await deliver(world.sql, 'logsnag', { environment })).toBeNull()
    expect(logsnag.taken.map(({ tags, timestamp, ...log }) => log)).toEqual([
      { project: 'demo', channel: 'nd-now-this', event: 'Odd', notify: false, user_id: people.ada },
      { project: 'demo', channel: 'default', event: 'Even', icon: ':moneybag:', notify: false, user_id: people.ada },
      { project: 'demo', channel: 'default', event: 'Icon', icon: '🛠️', notify: false, user_id: people.ada },
      { project: 'demo', channel: 'default', event: 'Icons', notify: false, user_id: people.ada }])
    expect(logsnag.taken[0]!.tags).toEqual({ 'event-id': expect.stringMatching(/^[0-9a-f-]{36}$/), 'event-id-x': 'mine too' })
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
})

describe('NDJSON', () => {
  const lines = async (path: string) => (await readFile(path, 'utf8')).split('\n')

  test('is the rows of the log, a line each, appended to a file', async () => {
    const path = join(folder.path, 'events.ndjson')
    await createSink(world.sql, 'file', 'ndjson', { path })
    await track({ event: 'First', org_id: orgs.acme, tags: { 'line\nbreak': '\u2028' } }, { event: 'Second' })
    await deliver(world.sql, 'file')
    await track({ event: 'Third' })
    await deliver(world.sql, 'file')
    const rows = await world.sql<{ row: LoggedEvent }[]>`select row_to_json(e) as row from public.events as e order by txid, event_id`
    expect((await lines(path)).slice(0, -1).map((line) => JSON.parse(line))).toEqual(rows.map(({ row }) => row))
    expect((await lines(path)).at(-1)).toBe('')
  })

  test('goes on where a crash cut a line short, and where a file was moved away', async () => {
    const path = join(folder.path, 'rotated.ndjson')
    await createSink(world.sql, 'file', 'ndjson', { path })
    await writeFile(path, '{"event":"Cut sho')
    await track({ event: 'First' })
    await deliver(world.sql, 'file')
    await rename(path, `${path}.1`)
    await track({ event: 'Second' })
    await deliver(world.sql, 'file')
    expect((await lines(`${path}.1`)).map((line) => line.slice(0, 20))).toEqual(['{"event":"Cut sho', '{"scope_id":"1000000', ''])
    expect((await lines(path)).map((line) => line.slice(0, 20))).toEqual(['{"scope_id":"1000000', ''])
  })

  test('waits where the file cannot be written', async () => {
    const path = join(folder.path, 'no', 'such.ndjson')
    await createSink(world.sql, 'file', 'ndjson', { path })
    await track({ event: 'First' })
    expect(await deliver(world.sql, 'file')).toMatchObject({ kind: 'retry', message: expect.stringContaining('ENOENT') })
    await mkdir(join(folder.path, 'no'))
    await retryNow(world.sql, 'file')
    expect(await deliver(world.sql, 'file')).toBeNull()
    expect(await lines(path)).toHaveLength(2)
  })

  test('goes to standard output where no file is named', async () => {
    const script = `
      import { openSink } from './src/sink.ts'
      const sink = openSink({ sink: 'out', kind: 'ndjson', settings: {} }, {})
      await sink.send(Array.from({ length: 300 }, (_, n) => ({ event: String(n), context: { blob: 'x'.repeat(1000) } })))`
    const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], { maxBuffer: 10_000_000 })
    expect(stdout.trimEnd().split('\n').map((line) => JSON.parse(line).event)).toEqual(Array.from({ length: 300 }, (_, n) => String(n)))
  })
})

describe('an answer', () => {
  const send = async (fault: Fault, settings = {}) => {
    hooks.options = { fault: () => fault }
    const sink = await open(world.sql, { sink: 'hook', kind: 'webhook', settings: { url: `${hooks.url}/hooks`, ...settings } }, { environment })
    return sink.send([someEvent], AbortSignal.timeout(20_000)).then(() => null, (error: SinkError) => error)
  }

  test.each([
    [408, 'retry'], [425, 'retry'], [429, 'retry'], [500, 'retry'], [502, 'retry'], [503, 'retry'], [504, 'retry'],
    [413, 'too_large'],
    [400, 'refused'], [403, 'refused'], [409, 'refused'], [415, 'refused'], [418, 'refused'], [422, 'refused'], [451, 'refused'],
  ] as const)('of %i means %s', async (status, kind) => {
    expect(await send({ status, text: 'because' })).toMatchObject({ name: 'SinkError', kind, status, retryAfterMs: undefined, message: `${status} because` })
  })

  test.each([301, 302, 304, 308, 401, 402, 404, 405, 410])('of %i is about the sink: events wait, and none is given up', async (status) => {
    expect(await send({ status, text: status === 304 ? '' : 'because' })).toMatchObject({ kind: 'retry', status, retryAfterMs: 300_000, message: expect.stringContaining(`The sink "hook" is turned away: ${status}`) })
  })

  test('that asks for a pause gets it', async () => {
    expect(await send({ status: 429, headers: { 'retry-after': '7' } })).toMatchObject({ retryAfterMs: 7000 })
    expect(await send({ status: 503, headers: { 'retry-after': '7' } })).toMatchObject({ retryAfterMs: 7000 })
    expect(await send({ status: 400, headers: { 'retry-after': '7' } })).toMatchObject({ kind: 'refused', retryAfterMs: undefined })
  })

  test.each([
    ['0', undefined], ['1', 1000], [' 120 ', 120_000], ['999999999', 86_400_000], ['Wed, 21 Oct 2026 07:28:00 GMT', 60_000], ['Wed, 21 Oct 2026 07:26:00 GMT', undefined],
    ['-5', undefined], ['1.5', undefined], ['soon', undefined], ['Soon', undefined], ['', undefined], [null, undefined], ['2026', 2_026_000],
  ])('with Retry-After %j asks for %j ms', (header, ms) => {
    expect(parseRetryAfter(header, Date.parse('2026-10-21T07:27:00Z'))).toBe(ms)
  })

  test('that is cut off, or late, or to a request that was stopped, leaves it to be tried again', async () => {
    expect(await send({ cut: 'before' })).toMatchObject({ kind: 'retry', status: undefined, message: expect.stringMatching(/^fetch failed: /) })
    expect(await send({ cut: 'after' })).toMatchObject({ kind: 'retry', status: undefined })
    expect(await send({ delayMs: 5000 }, { timeout_seconds: 0.2 })).toMatchObject({ kind: 'retry', message: 'There was no answer within 0.2 seconds.' })
    const sink = await open(world.sql, { sink: 'hook', kind: 'webhook', settings: { url: `${hooks.url}/hooks` } }, { environment })
    await expect(sink.send([someEvent], AbortSignal.timeout(200))).rejects.toMatchObject({ kind: 'retry', message: 'The request was stopped.' })
    const closed = await open(world.sql, { sink: 'hook', kind: 'webhook', settings: { url: 'http://127.0.0.1:1/' } }, { environment })
    await expect(closed.send([someEvent], AbortSignal.timeout(5000))).rejects.toMatchObject({ kind: 'retry', message: expect.stringMatching(/^fetch failed: /) })
  })

  test('is read as far as it matters', async () => {
    expect((await send({ status: 400, text: 'x'.repeat(5_000_000) }))!.message).toBe(`400 ${'x'.repeat(496)}`)
  })
})

describe('settings', () => {
  const opened = (kind: string, settings: object) => open(world.sql, { sink: 's', kind, settings: settings as Record<string, unknown> }, { environment: { ...environment, ACTORSCOPE_SINK_S_SECRET: secret } })

  test.each([
    ['posthog', { hots: 'x' }, 'The sink "s" has the unknown setting "hots"; it may have host, set_person_properties, historical_before, timeout_seconds.'],
    ['posthog', { host: 'eu.posthog.com' }, 'The sink "s" has a wrong setting: host must be an http(s) URL without a login.'],
    ['posthog', { host: 'ftp://eu.posthog.com' }, 'The sink "s" has a wrong setting: host must be an http(s) URL without a login.'],
    ['webhook', { url: 'https://me:password@example.com' }, 'The sink "s" has a wrong setting: url must be an http(s) URL without a login.'],
    ['posthog', { set_person_properties: 'yes' }, 'The sink "s" has a wrong setting: set_person_properties must be true or false.'],
    ['posthog', { historical_before: 'May' }, 'The sink "s" has a wrong setting: historical_before must be an ISO 8601 time.'],
    ['posthog', { timeout_seconds: 0 }, 'The sink "s" has a wrong setting: timeout_seconds must be a number of seconds up to 3600.'],
    ['posthog', { toString: 1 }, 'The sink "s" has the unknown setting "toString"; it may have host, set_person_properties, historical_before, timeout_seconds.'],
    ['webhook', {}, 'The sink "s" has no url.'],
    ['webhook', { url: null }, 'The sink "s" has no url.'],
    ['logsnag', { project: '' }, 'The sink "s" has a wrong setting: project must be a text.'],
    ['logsnag', {}, 'The sink "s" has no project.'],
    ['bento', {}, 'The sink "s" has no site_uuid.'],
    ['pigeon', {}, 'The sink "s" is of the unknown kind "pigeon".'],
  ])('of %s: %j: %s', async (kind, settings, message) => {
    await expect(opened(kind, settings)).rejects.toMatchObject({ name: 'SinkError', kind: 'retry', retryAfterMs: 300_000, message })
  })
})

describe('secrets', () => {
  const batch = { sink: 'posthog-eu', kind: 'posthog', settings: {} }

  test('are the sink\'s own, or else the vendor\'s usual ones', async () => {
    const opened = async (environment: Record<string, string>) => {
      const requests: { body: string }[] = []
      const sink = await open(world.sql, batch, { environment, fetch: async (_, init) => {
        requests.push(init as { body: string })
        return new Response('{"status":"Ok"}')
      } })
      await sink.send([someEvent], AbortSignal.timeout(1000))
      return JSON.parse(requests[0]!.body).api_key
    }
    expect(await opened({ POSTHOG_API_KEY: 'usual' })).toBe('usual')
    expect(await opened({ POSTHOG_API_KEY: 'usual', ACTORSCOPE_SINK_POSTHOG_EU_API_KEY: ' own\n' })).toBe('own')
    expect(await opened({ POSTHOG_API_KEY: 'usual', ACTORSCOPE_SINK_POSTHOG_EU_API_KEY: ' ' })).toBe('usual')
    await world.sql.unsafe(`
      create schema vault;
      create view vault.decrypted_secrets as select * from (values
        ('POSTHOG_API_KEY', E'usual in the vault\\n'), ('ACTORSCOPE_SINK_POSTHOG_EU_API_KEY', 'own in the vault'), ('ACTORSCOPE_SINK_POSTHOGXEU_API_KEY', 'x'), (null, 'y'), ('POSTHOG_API', null)
      ) as s (name, decrypted_secret)`)
    expect(await opened({})).toBe('own in the vault')
    expect(await opened({ POSTHOG_API_KEY: 'usual' })).toBe('own in the vault')
    expect(await opened({ ACTORSCOPE_SINK_POSTHOG_EU_API_KEY: 'own' })).toBe('own')
    await world.sql`create or replace view vault.decrypted_secrets as select 'POSTHOG_API_KEY'::text as name, E'usual in the vault\n'::text as decrypted_secret`
    expect(await opened({})).toBe('usual in the vault')
    await world.sql`drop schema vault cascade`
  })

  test('that are missing hold the sink up, and the error says where to put them', async () => {
    await expect(open(world.sql, batch)).rejects.toMatchObject({
      kind: 'retry', retryAfterMs: 300_000,
      message: 'The sink "posthog-eu" has no api_key: put it into the worker\'s environment, or into Supabase\'s Vault, as ACTORSCOPE_SINK_POSTHOG_EU_API_KEY or POSTHOG_API_KEY.' })
    await expect(open(world.sql, { sink: 'hook', kind: 'webhook', settings: { url: 'http://x' } }, { environment: { WEBHOOK_SECRET: secret } })).rejects.toThrow(
      'The sink "hook" has no secret: put it into the worker\'s environment, or into Supabase\'s Vault, as ACTORSCOPE_SINK_HOOK_SECRET.')
  })

  test('are in no error, no log line, no dead letter and no table, though vendors repeat what they are sent', async () => {
    const echo = (status: number) => ({ body, headers }: { body: unknown, headers: object }): Fault => ({ status, text: JSON.stringify({ said: body, headers, raw: Object.values(headers).join() }) })
    const receivers = [await startPostHog('another key'), await startBento(site), logsnag, hooks] as unknown as Receiver<never>[]
    const [posthogUrl, bentoUrl] = receivers.map(({ url }) => url) as [string, string]
    await createSink(world.sql, 'posthog', 'posthog', { host: posthogUrl })
    await createSink(world.sql, 'bento', 'bento', { host: bentoUrl, site_uuid: site.siteUuid })
    await createSink(world.sql, 'logsnag', 'logsnag', { host: logsnag.url, project: 'demo' })
    await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
    await track({ event: 'First' }, { event: 'Second' })
    const said: unknown[] = []
    const log = (...line: unknown[]) => { said.push(line) }
    for (const status of [401, 500, 429, 307, 413, 400]) {
      for (const receiver of receivers) receiver.options = { fault: echo(status) }
      for (const sink of ['posthog', 'bento', 'logsnag', 'hook']) {
        const error = await deliver(world.sql, sink, { environment, log })
        said.push(error && { ...error, message: error.message, stack: error.stack, cause: String(error.cause) })
        await retryNow(world.sql, sink)
      }
    }
    said.push(await world.sql`select (select json_agg(s) from tracking.sinks as s) as s, (select json_agg(c) from tracking.cursors as c) as c, (select json_agg(u) from tracking.undelivered as u) as u, (select json_agg(l) from tracking.sink_lag as l) as l`)
    const text = JSON.stringify(said)
    expect(text).toContain('***')
    expect(await deadLetters(world.sql, 'posthog')).toHaveLength(2)
    const secrets = [...Object.values(environment), secret.slice('whsec_'.length), 'sec_91cd', 'phc_f8a7', btoa(`${site.publishableKey}:${site.secretKey}`)]
    expect(secrets.filter((one) => text.includes(one) || text.includes(JSON.stringify(one).slice(1, -1)))).toEqual([])
    await Promise.all(receivers.slice(0, 2).map((receiver) => receiver.close()))
  })
})

test('what a real client sent reaches every sink', async () => {
  const posthog = await startPostHog(environment.POSTHOG_API_KEY)
  const bento = await startBento(site)
  const path = join(folder.path, 'recorded.ndjson')
  const sinks = {
    posthog: { host: posthog.url }, bento: { host: bento.url, site_uuid: site.siteUuid }, logsnag: { host: logsnag.url, project: 'demo' },
    hook: { url: `${hooks.url}/hooks` }, file: { path },
  }
  const kinds = { posthog: 'posthog', bento: 'bento', logsnag: 'logsnag', hook: 'webhook', file: 'ndjson' }
  for (const [sink, settings] of Object.entries(sinks)) await createSink(world.sql, sink, kinds[sink as keyof typeof kinds], settings)
  const recorded = (await readFile('tests/fixtures/capgo-cli-8.68.1.jsonl', 'utf8')).trim().split('\n').map((line) => JSON.parse(line))
  const { data } = await world.withKey('as_local_demo_app').rpc('track_events', { v2: recorded })
  expect(data.accepted).toBe(16)
  for (const sink of Object.keys(sinks)) expect([sink, await deliver(world.sql, sink, { environment }), await deadLetters(world.sql, sink)]).toEqual([sink, null, []])

  const ids = data.results.map(({ event_id }: { event_id: string }) => event_id).sort()
  expect(posthog.taken.filter(({ event }) => event !== '$groupidentify').map(({ uuid }) => uuid).sort()).toEqual(ids)
  expect(posthog.taken.filter(({ event }) => event === '$groupidentify').map(({ properties }) => properties.$group_set)).toEqual([{ name: 'Demo' }])
  expect(bento.taken.map(({ details }) => details!.event_id).sort()).toEqual(ids)
  expect(new Set(bento.taken.map(({ email }) => email))).toEqual(new Set(['ada@acme.test']))
  expect(logsnag.taken.map(({ tags }) => tags!['event-id']).sort()).toEqual(ids)
  expect(hooks.taken.map(({ id }) => id).sort()).toEqual(ids)
  expect((await readFile(path, 'utf8')).trim().split('\n').map((line) => JSON.parse(line).event_id).sort()).toEqual(ids)
  expect([posthog, bento, logsnag, hooks].flatMap(({ breaches }) => breaches)).toEqual([])
  expect(await world.sql`select sink, delivered::int, undelivered::int, filtered::int from tracking.sink_lag order by sink`).toEqual(
    Object.keys(sinks).sort().map((sink) => ({ sink, delivered: 16, undelivered: 0, filtered: 0 })))
  await Promise.all([posthog.close(), bento.close()])
})

const someEvent: LoggedEvent = {
  scope_id: people.ada, occurred_at: '2026-11-05T09:30:00.123+00:00', event_id: '019565a3-fa3b-7000-8000-000000000001', org_id: null, actor_id: people.ada, app_id: null, api_key_id: null,
  event: 'Some', channel: 'default', description: null, icon: null, parser: null, notify: false, tags: {}, context: {}, tracking_version: 2, source: 'client', clock_skew: null,
  received_at: '2026-11-05T09:30:00.2+00:00', txid: '7', epoch: 1,
}

/** Tracks events of Ada's in one transaction. */
async function track(...payloads: object[]): Promise<void> {
  const client = await (ada ??= world.signIn('ada@acme.test'))
  const { data, error } = await client.rpc('track_events', { v2: payloads.map((payload) => ({ tracking_version: 2, ...payload })) })
  expect([error, data?.accepted]).toEqual([null, payloads.length])
}
let ada: ReturnType<World['signIn']> | undefined
