import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { parseRetryAfter, userAgent } from '../src/http.ts'
import { createLog } from '../src/log.ts'
import { Pace } from '../src/pace.ts'
import { redact, secretsIn } from '../src/secrets.ts'
import { LoggedEvent, type EventRow, type SinkError } from '../src/sink.ts'
import { people } from './demo.ts'
import { startBento, startLogSnag, startPostHog, startWebhook } from './receivers.ts'
import type { Fault, LoggedLog, Receiver, VerifiedWebhook } from './receivers.ts'
import { createSink, deadLetters, deliver, open, retryNow, trackIn, type Track } from './sending.ts'
import { createWorld, type World } from './world.ts'

// What all sinks have in common: how they take answers, settings and secrets.

const secret = `whsec_${Buffer.from('a secret of twenty-four!').toString('base64')}`
const environment = {
  ACTORSCOPE_SINK_HOOK_SECRET: secret, LOGSNAG_TOKEN: 'lst_4b7d1f0e', POSTHOG_API_KEY: 'phc_f8a7"c3b1',
  BENTO_PUBLISHABLE_KEY: 'pub_77ab', BENTO_SECRET_KEY: 'sec_91cd"é/',
}
const site = {
  siteUuid: 'site-1', publishableKey: environment.BENTO_PUBLISHABLE_KEY, secretKey: environment.BENTO_SECRET_KEY }
const bentoSettings = { site_uuid: site.siteUuid, requests_per_minute: 100_000 }

let world: World
let track: Track
let hooks: Receiver<VerifiedWebhook>
let logsnag: Receiver<LoggedLog>

beforeAll(async () => {
  world = await createWorld()
  track = trackIn(world)
  hooks = await startWebhook(secret)
  logsnag = await startLogSnag(environment.LOGSNAG_TOKEN, 'demo')
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
  await Promise.all([hooks?.close(), logsnag?.close(), world?.close()])
})

describe('an answer', () => {
  const send = async (fault: Fault, settings = {}): Promise<SinkError | null> => {
    hooks.options = { fault: () => fault }
    const sink = await open(world.sql, hookWith(settings), { environment })
    return sink.send([someEvent], AbortSignal.timeout(20_000)).then(() => null, (error: SinkError) => error)
  }

  test.each([
    [408, 'retry'], [425, 'retry'], [429, 'retry'], [500, 'retry'], [502, 'retry'], [503, 'retry'], [504, 'retry'],
    [413, 'too_large'],
    [400, 'refused'], [403, 'refused'], [409, 'refused'], [415, 'refused'], [418, 'refused'], [422, 'refused'],
    [451, 'refused'],
  ] as const)('of %i means %s', async (status, kind) => {
    expect(await send({ status, text: 'because' })).toMatchObject({
      name: 'SinkError', kind, status, retryAfterMs: undefined, message: `${status} because` })
  })

  test.each([301, 302, 304, 307, 308, 401, 402, 404, 405, 410])(
    'of %i is about the sink: events wait, and none is given up', async (status) => {
      const message = expect.stringContaining(`The sink "hook" is turned away: ${status}`)
      expect(await send({ status, text: status === 304 ? '' : 'because' })).toMatchObject({
        kind: 'retry', status, retryAfterMs: 300_000, message })
    })

  // Node's own fetch keeps it to itself, Deno's does not.
  test('of 407, where it is shown at all, is about the sink as well', async () => {
    const fetch = async () => new Response('because', { status: 407 })
    const sink = await open(world.sql, hookWith(), { environment, fetch })
    await expect(sink.send([someEvent], AbortSignal.timeout(1000))).rejects.toMatchObject({ kind: 'retry', status: 407 })
  })

  test('that says nothing is told by its name', async () => {
    expect(await send({ status: 400, text: '' })).toMatchObject({ message: '400 Bad Request' })
  })

  test('that asks for a pause gets it, in seconds or until a date', async () => {
    const answer = (status: number, pause: string) => send({ status, headers: { 'retry-after': pause } })
    expect(await answer(429, '7')).toMatchObject({ retryAfterMs: 7000 })
    expect(await answer(503, '7')).toMatchObject({ retryAfterMs: 7000 })
    expect(await answer(400, '7')).toMatchObject({ kind: 'refused', retryAfterMs: undefined })
    const { retryAfterMs } = (await answer(429, new Date(Date.now() + 3_600_000).toUTCString()))!
    expect(Math.abs(retryAfterMs! - 3_600_000)).toBeLessThan(60_000)
  })

  test.each([
    ['0', undefined], ['1', 1000], [' 120 ', 120_000], ['999999999', 86_400_000], ['2026', 2_026_000],
    ['Wed, 21 Oct 2026 07:28:00 GMT', 60_000], ['Wed, 21 Oct 2026 07:26:00 GMT', undefined],
    ['-5', undefined], ['1.5', undefined], ['soon', undefined], ['Soon', undefined], ['', undefined], [null, undefined],
  ])('with Retry-After %j asks for %j ms', (header, ms) => {
    expect(parseRetryAfter(header, Date.parse('2026-10-21T07:27:00Z'))).toBe(ms)
  })

  test.each([
    ['is cut off ahead of it', { cut: 'before' }, /^fetch failed: /],
    ['is cut off after it was taken', { cut: 'after' }, /^fetch failed: /],
    ['is cut off in its midst', { cut: 'amid' }, /^terminated: /],
    ['is late', { delayMs: 5000 }, /^There was no answer within 0.3 seconds\.$/],
    ['never comes to its end', { endless: 'trickle' }, /^There was no answer within 0.3 seconds\.$/],
  ] as const)('that %s leaves it to be tried again', async (_, fault, said) => {
    expect(await send(fault, { timeout_seconds: 0.3 })).toMatchObject({
      kind: 'retry', status: undefined, retryAfterMs: undefined, message: expect.stringMatching(said) })
  })

  test('is read as far as it matters', async () => {
    expect((await send({ status: 400, text: 'x'.repeat(5_000_000) }))!.message).toBe(`400 ${'x'.repeat(496)}`)
    expect(await send({ endless: 'flood' })).toBeNull()
  })

  test('is not waited for when it is time to stop', async () => {
    hooks.options = { fault: () => ({ delayMs: 5000 }) }
    const sink = await open(world.sql, hookWith(), { environment })
    await expect(sink.send([someEvent], AbortSignal.timeout(100)))
      .rejects.toMatchObject({ kind: 'retry', message: 'The request was stopped.' })
  })

  test.each([
    ['http://127.0.0.1:1/', /^fetch failed: /],
    ['http://nobody.invalid/', /^fetch failed: (ENOTFOUND|EAI_AGAIN)$|no answer/],
  ])('that nobody gives, at %s, leaves it to be tried again', async (url, said) => {
    const sink = await open(world.sql, hookWith({ url, timeout_seconds: 5 }), { environment })
    await expect(sink.send([someEvent], AbortSignal.timeout(20_000)))
      .rejects.toMatchObject({ kind: 'retry', message: expect.stringMatching(said) })
  })
})

describe('settings', () => {
  const posthogs = 'it may have host, set_person_properties, historical_before, timeout_seconds, project_id, app_host.'
  const anUrl = 'must be an http(s) URL without a login.'
  test.each([
    ['posthog', { hots: 'x' }, `has the unknown setting "hots"; ${posthogs}`],
    ['posthog', { toString: 1 }, `has the unknown setting "toString"; ${posthogs}`],
    ['posthog', { host: 'eu.posthog.com' }, `has a wrong setting: host ${anUrl}`],
    ['posthog', { host: 'ftp://eu.posthog.com' }, `has a wrong setting: host ${anUrl}`],
    ['webhook', { url: 'https://me:password@example.com' }, `has a wrong setting: url ${anUrl}`],
    ['posthog', { set_person_properties: 'yes' }, 'has a wrong setting: set_person_properties must be true or false.'],
    ['posthog', { historical_before: 'May' }, 'has a wrong setting: historical_before must be an ISO 8601 time.'],
    ['posthog', { timeout_seconds: 0 },
      'has a wrong setting: timeout_seconds must be a number of seconds up to 3600.'],
    ['bento', { requests_per_minute: 0.5 },
      'has a wrong setting: requests_per_minute must be a whole number from 1.'],
    ['webhook', {}, 'has no url.'],
    ['webhook', { url: null }, 'has no url.'],
    ['logsnag', { project: '' }, 'has a wrong setting: project must be a text.'],
    ['logsnag', {}, 'has no project.'],
    ['bento', {}, 'has no site_uuid.'],
    ['pigeon', {}, 'is of the unknown kind "pigeon".'],
  ])('of %s: %j: %s', async (kind, settings, said) => {
    const batch = { sink: 's', kind, settings: settings as Record<string, unknown> }
    await expect(open(world.sql, batch, { environment: { ...environment, ACTORSCOPE_SINK_S_SECRET: secret } }))
      .rejects.toMatchObject({ kind: 'retry', retryAfterMs: 300_000, message: `The sink "s" ${said}` })
  })
})

describe('secrets', () => {
  const batch = { sink: 'posthog-eu', kind: 'posthog', settings: {} }

  /** Sends an event to PostHog; answers with the key that it went with. */
  async function keyOf(environment: Record<string, string>): Promise<string> {
    let key = ''
    const sink = await open(world.sql, batch, { environment, fetch: async (_, init) => {
      key = JSON.parse(String(init?.body)).api_key
      return new Response('{"status":"Ok"}')
    } })
    await sink.send([someEvent], AbortSignal.timeout(1000))
    return key
  }

  test('are the sink\'s own, or else the vendor\'s usual ones; the environment\'s, or else the Vault\'s', async () => {
    const [usual, own] = ['POSTHOG_API_KEY', 'ACTORSCOPE_SINK_POSTHOG_EU_API_KEY']
    expect(await keyOf({ [usual]: 'usual' })).toBe('usual')
    expect(await keyOf({ [usual]: 'usual', [own]: ' own\n' })).toBe('own')
    expect(await keyOf({ [usual]: 'usual', [own]: ' ' })).toBe('usual')
    await world.sql.unsafe(`
      create schema vault;
      create view vault.decrypted_secrets as
        select *
        from   (values
          ('${usual}', E'usual in the vault\\n'), ('${own}', 'own in the vault'),
          ('ACTORSCOPE_SINK_POSTHOGXEU_API_KEY', 'x'), (null, 'y'), ('POSTHOG_API', null)
        ) as s (name, decrypted_secret)`)
    try {
      expect(await keyOf({})).toBe('own in the vault')
      expect(await keyOf({ [usual]: 'usual' })).toBe('own in the vault')
      expect(await keyOf({ [own]: 'own' })).toBe('own')
      await world.sql.unsafe(`
        create or replace view vault.decrypted_secrets as
          select '${usual}'::text as name, E'usual in the vault\\n'::text as decrypted_secret`)
      expect(await keyOf({})).toBe('usual in the vault')

      // Who may not read it does without
      const stranger = world.connectAs('authenticator')
      const sink = await open(stranger, batch, { environment: { [usual]: 'usual' }, fetch: async () => new Response('') })
      expect(await sink.send([someEvent], AbortSignal.timeout(1000))).toEqual([])
    } finally {
      await world.sql`drop schema vault cascade`
    }
  })

  test('that are missing hold the sink up, and the error says where to put them', async () => {
    const wayOut = 'put it into the worker\'s environment, or into Supabase\'s Vault, as'
    await expect(open(world.sql, batch)).rejects.toMatchObject({
      kind: 'retry', retryAfterMs: 300_000, message:
        `The sink "posthog-eu" has no api_key: ${wayOut} ACTORSCOPE_SINK_POSTHOG_EU_API_KEY or POSTHOG_API_KEY.` })
    await expect(open(world.sql, hookWith(), { environment: { WEBHOOK_SECRET: secret } })).rejects.toThrow(
      `The sink "hook" has no secret: ${wayOut} ACTORSCOPE_SINK_HOOK_SECRET.`)
  })

  test('are in no error, log line, dead letter or table, though vendors repeat what they are sent', async () => {
    const echo = (status: number, own: string) => ({ body, headers }: { body: unknown, headers: object }): Fault => (
      { status, text: JSON.stringify({ own, raw: Object.values(headers).join(), body, headers }) })
    const posthog = await startPostHog('another key')
    const bento = await startBento({ ...site, requestsPerMinute: 1e9 })
    await createSink(world.sql, 'posthog', 'posthog', { host: posthog.url })
    await createSink(world.sql, 'bento', 'bento', { host: bento.url, ...bentoSettings })
    await createSink(world.sql, 'logsnag', 'logsnag', { host: logsnag.url, project: 'demo' })
    await createSink(world.sql, 'hook', 'webhook', { url: `${hooks.url}/hooks` })
    await track('ada@acme.test', { event: 'First' }, { event: 'Second' })
    const said: unknown[] = []
    const log = (...line: unknown[]) => { said.push(line) }
    for (const status of [401, 500, 429, 307, 413, 400]) {
      for (const receiver of [posthog, bento, logsnag]) receiver.options = { fault: echo(status, '') }
      hooks.options = { fault: echo(status, secret.slice('whsec_'.length)) }
      for (const sink of ['posthog', 'bento', 'logsnag', 'hook']) {
        const error = await deliver(world.sql, sink, { environment, log })
        said.push(error && { ...error, message: error.message, stack: error.stack, cause: String(error.cause) })
        said.push(await world.sql`select * from tracking.cursors`, await world.sql`select * from tracking.sink_lag`)
        await retryNow(world.sql, sink)
      }
    }
    said.push(await world.sql`select * from tracking.sinks`, await world.sql`select * from tracking.undelivered`)
    for (const sink of ['posthog', 'bento', 'logsnag', 'hook']) {
      expect(await deadLetters(world.sql, sink)).toEqual(['First', 'Second'].map((event) => [
        event, expect.stringContaining('***')]))
    }
    expectNoSecret(said)
    await Promise.all([posthog.close(), bento.close()])
  })

  test('are in no error where they cannot be sent at all', async () => {
    await createSink(world.sql, 'logsnag', 'logsnag', { host: logsnag.url, project: 'demo' })
    await track('ada@acme.test', { event: 'First' })
    const LOGSNAG_TOKEN = `${environment.LOGSNAG_TOKEN}\n${environment.LOGSNAG_TOKEN}`
    const error = await deliver(world.sql, 'logsnag', { environment: { LOGSNAG_TOKEN } })
    expect(error).toMatchObject({ kind: 'retry', message: expect.stringContaining('***') })
    expectNoSecret([error!.message, error!.stack, await world.sql`select * from tracking.cursors`])
  })

  test('are known by their names, and taken out in each of their forms', () => {
    const environment = {
      A_TOKEN: 'token-1', B_KEY: 'key-1"', MY_SECRET_X: 'secret-1', PGPASSWORD: 'pass-1', KEYS: 'no-1', EMPTY_KEY: '' }
    const found = secretsIn(environment, 'postgres://me:p%40ssword@localhost/x')
    expect(found.filter(Boolean)).toEqual(
      ['token-1', 'key-1"', 'secret-1', 'pass-1', 'postgres://me:p%40ssword@localhost/x', 'p%40ssword', 'p@ssword'])
    expect(redact('token-1 "key-1\\"" key-1%22 no-1 p@ssword, or ab', [...found, 'ab']))
      .toBe('*** "***" *** no-1 ***, or ab')
    expect(secretsIn({}, 'postgres://me:100%@localhost/x')).toContain('100%')
  })

  test.each([false, true])('are in no line of a log that was told them; for people: %s', (pretty) => {
    const lines: string[] = []
    const log = createLog({ write: (line) => lines.push(line), pretty, now: () => new Date(0) })
    log.hide(['phc_f8a7"c3b1', undefined])
    log('warn', 'it said phc_f8a7"c3b1', { sink: 'x', error: 'a\nphc_f8a7"c3b1\u001b[2J' })
    log('debug', 'not told')
    expect(lines).toEqual([pretty
      ? '00:00:00.000 WARN it said ***  sink=x error=a ***\\u001b[2J'
      : '{"time":"1970-01-01T00:00:00.000Z","level":"warn","message":"it said ***","sink":"x",'
        + '"error":"a\\n***\\u001b[2J"}'])
  })

  function expectNoSecret(said: unknown[]): void {
    const text = JSON.stringify(said)
    const login = btoa(String.fromCharCode(...new TextEncoder().encode(`${site.publishableKey}:${site.secretKey}`)))
    const secrets = [...Object.values(environment), secret.slice('whsec_'.length), 'sec_91cd', 'phc_f8a7', login]
    expect(secrets.filter((one) => text.includes(one) || text.includes(JSON.stringify(one).slice(1, -1)))).toEqual([])
  }
})

describe('a pace', () => {
  /** The times of so many requests, each made as soon as it may after the one before and a pause. */
  function timesOf(perMinute: number, count: number, pauseMs: (n: number) => number = () => 0): number[] {
    let now = 0
    const pace = new Pace(perMinute, () => now)
    return Array.from({ length: count }, (_, n) => {
      now += pauseMs(n)
      return now += pace.next()
    })
  }

  test.each([
    [100, () => 0], [100, (n: number) => n % 40 === 0 ? 45_000 : 0], [100, (n: number) => n * 37 % 1300],
    [10, () => 0], [1, () => 0], [7, (n: number) => n % 3 * 20_000],
  ])('of %i has no minute with more requests, however they come', (perMinute, pauseMs) => {
    const times = timesOf(perMinute, 600, pauseMs)
    const most = Math.max(...times.map((from) => times.filter((time) => time >= from && time < from + 60_000).length))
    expect(most).toBeLessThanOrEqual(perMinute)
  })

  test('lets a few come at once, and holds nobody up who keeps to it', () => {
    expect(timesOf(100, 22).map(Math.round)).toEqual([...Array(20).fill(0), 750, 1500])
    const lateness = timesOf(100, 500, () => 800).map((time, n) => time - 800 * (n + 1))
    expect(Math.max(...lateness)).toBe(0)
  })
})

test('requests are introduced by the package\'s version', async () => {
  expect(userAgent).toBe(`actorscope/${JSON.parse(await readFile('package.json', 'utf8')).version}`)
})

const hookWith = (settings: object = {}) =>
  ({ sink: 'hook', kind: 'webhook', settings: { url: `${hooks.url}/hooks`, ...settings } })

const someRow: EventRow = {
  scope_id: people.ada, occurred_at: '2026-11-05T09:30:00.123+00:00', event_id: '019565a3-fa3b-7000-8000-000000000001',
  org_id: null, actor_id: people.ada, app_id: null, api_key_id: null, event: 'Some', channel: 'default',
  description: null, icon: null, parser: null, notify: false, tags: {}, context: {}, tracking_version: 2,
  source: 'client', clock_skew: null, received_at: '2026-11-05T09:30:00.2+00:00', txid: '7', epoch: 1,
}
const someEvent = new LoggedEvent(Buffer.from(JSON.stringify(someRow)))
