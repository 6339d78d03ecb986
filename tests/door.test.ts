import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { jwtSecret, publishableKey, secretKey } from '../src/api.ts'
import { projectDir } from '../src/settings.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { doors, openInProcess, runInDeno, startUpstream, type Door, type Upstream } from './doors.ts'
import { anyJson } from './json.ts'
import { createWorld, signToken, type World } from './world.ts'

type Headers = Record<string, string>

const demoKey = { capgkey: 'as_local_demo_app' }
const adminKey = { capgkey: 'as_local_acme_admin' }
const v2 = { event: 'Bundle Uploaded', tracking_version: 2 }
const inAnHour = Math.floor(Date.now() / 1000) + 3600
const claims = { sub: people.ada, role: 'authenticated', aud: 'authenticated', exp: inAnHour }

let world: World
let tokens: { ada: string, bob: string, eve: string }

beforeAll(async () => {
  world = await createWorld()
  tokens = { ada: await tokenOf('ada@acme.test'), bob: await tokenOf('bob@acme.test'), eve: await tokenOf('eve@evil.test') }
})
afterAll(() => world?.close())

describe.each(doors)('the door %s', (_, open) => {
  let door: Door
  beforeAll(async () => { door = await open(world.api.url) })
  afterAll(() => door?.close())
  beforeEach(() => world.sql`truncate events, realtime.messages`)

  const post = (body: RequestInit['body'], headers: Headers = demoKey) => ask(door, '/private/events', { method: 'POST', body, headers })
  const send = (payload: unknown, headers?: Headers) => post(JSON.stringify(payload), headers)

  describe('asks the database who is calling, which', () => {
    const ada = { actor_id: people.ada, api_key_id: null, source: 'client' }
    const byKey = { ...ada, api_key_id: '20000000-0000-4000-8000-000000000002' }
    const accepted: [caller: string, headers: () => Headers, row: object][] = [
      ['a JWT', () => ({ authorization: `Bearer ${tokens.ada}` }), ada],
      ['a JWT whose scheme is in lower case', () => ({ authorization: `bearer ${tokens.ada}` }), ada],
      ['a JWT without a scheme', () => ({ authorization: tokens.ada }), ada],
      ['a JWT beside an API key of somebody else', () => ({ authorization: `Bearer ${tokens.bob}`, ...demoKey }), { ...ada, actor_id: people.bob }],
      ['an API key in capgkey', () => demoKey, byKey],
      ['an API key in x-api-key', () => ({ 'x-api-key': 'as_local_demo_app' }), byKey],
      ['an API key in Authorization', () => ({ authorization: 'as_local_demo_app' }), byKey],
      ['an API key in Authorization and in capgkey', () => ({ authorization: 'as_local_demo_app', ...demoKey }), byKey],
      ['an API key beside the publishable key in Authorization', () => ({ authorization: `Bearer ${publishableKey}`, ...demoKey }), byKey],
      ['what supabase-js sends of somebody signed in', () => ({ apikey: publishableKey, authorization: `Bearer ${tokens.ada}` }), ada],
      ['what supabase-js sends with an API key', () => ({ apikey: publishableKey, authorization: `Bearer ${publishableKey}`, ...demoKey }), byKey],
    ]
    test.each(accepted)('knows the actor by %s', async (_, headers, row) => {
      expect(await send({ event: 'Hello' }, headers())).toEqual({ status: 200, body: { status: 'ok' } })
      expect(await world.sql`select actor_id, api_key_id, source from events`).toEqual([row])
    })

    test.each([
      ['in apikey', { apikey: secretKey }],
      ['in Authorization', { authorization: `Bearer ${secretKey}` }],
      ['in both, as supabase-js sends it', { apikey: secretKey, authorization: `Bearer ${secretKey}` }],
    ])('knows the service role by the secret key %s', async (_, headers) => {
      expect(await send({ ...v2, org_id: orgs.acme, user_id: people.bob }, headers)).toEqual({ status: 200, body: { status: 'ok' } })
      expect(await world.sql`select actor_id, org_id, source from events`).toEqual([
        { actor_id: people.bob, org_id: orgs.acme, source: 'service' }])
    })

    const nobody = { error: 'no_jwt_apikey_or_subkey', message: 'Nobody is signed in, and no API key was sent.' }
    const badKey = { error: 'invalid_apikey', message: 'The API key that was sent is not valid.' }
    const badToken = { error: 'invalid_jwt' }
    const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
    const refused: [caller: string, headers: Headers, answer: object][] = [
      ['no credentials', {}, nobody],
      ['empty credentials', { capgkey: '', authorization: '' }, nobody],
      ['the publishable key alone', { apikey: publishableKey }, nobody],
      ['a scheme that is not Bearer', { authorization: 'Basic YWRhOnBhc3N3b3Jk' }, nobody],
      ['an unknown key', { capgkey: 'invalid_key' }, badKey],
      ['an unknown key in Authorization', { authorization: '67eeaff4-ae4c-49a6-8eb1-0875f5369de0' }, badKey],
      ['a revoked key', { capgkey: 'as_local_revoked' }, badKey],
      ['an expired key', { 'x-api-key': 'as_local_expired' }, badKey],
      ['a bearer token that is no JWT', bearer('invalid_token'), badToken],
      ['a bearer token that is empty, beside a good key', { authorization: 'Bearer', ...demoKey }, badToken],
      ['a JWT of another secret', bearer(signToken(claims, 'another-secret-of-at-least-32-characters')), badToken],
      ['a JWT that has expired', bearer(signToken({ ...claims, exp: inAnHour - 7200 })), badToken],
      ['a JWT that has expired, beside a good key', { ...bearer(signToken({ ...claims, exp: inAnHour - 7200 })), ...demoKey }, badToken],
      ['a JWT of nobody', bearer(signToken({ role: 'authenticated', exp: inAnHour }, jwtSecret)), nobody],
      ['a project key of somebody else\'s', { apikey: 'sb_publishable_other' }, { error: 'invalid_apikey' }],
    ]
    test.each(refused)('refuses %s with 401, and nothing is written', async (_, headers, answer) => {
      expect(await send({ event: 'Hello' }, headers)).toMatchObject({ status: 401, body: { ...answer, moreInfo: {} } })
      expect(await world.sql`select from events`).toHaveLength(0)
    })
  })

  describe('hands payloads of both versions to track_event as they are', () => {
    const acme = { org_id: orgs.acme, app_id: null, actor_id: people.ada }
    const demo = { org_id: orgs.demo, app_id: 'com.demo.app', actor_id: people.ada }
    const alone = { org_id: null, app_id: null, actor_id: people.ada }
    const app = { 'app-id': 'com.demo.app' }
    const payloads: [title: string, payload: object, headers: Headers, row: object][] = [
      ['version 1 for the caller', { event: 'E', user_id: people.ada }, adminKey, { ...alone, tracking_version: 1 }],
      ['version 1 with an organization in user_id', { event: 'E', user_id: orgs.acme }, adminKey, { ...acme, tracking_version: 1 }],
      ['version 1 with an organization and its app', { event: 'E', user_id: orgs.demo, tags: app }, demoKey, { ...demo, tracking_version: 1 }],
      ['version 1 by its number', { event: 'E', tracking_version: 1, user_id: orgs.acme }, adminKey, { ...acme, tracking_version: 1 }],
      ['version 2', { event: 'E', tracking_version: 2, org_id: orgs.acme }, adminKey, { ...acme, tracking_version: 2 }],
      ['version 2 as a string', { event: 'E', tracking_version: '2', org_id: orgs.acme }, adminKey, { ...acme, tracking_version: 2 }],
      ['version 2 with an app', { event: 'E', tracking_version: 2, org_id: orgs.demo, tags: { app_id: 'com.demo.app' } }, demoKey, { ...demo, tracking_version: 2 }],
      ['version 2 with an app alone', { event: 'E', tracking_version: 2, tags: app }, demoKey, { ...demo, tracking_version: 2 }],
      ['version 2 without an organization', { event: 'E', tracking_version: 2 }, adminKey, { ...alone, tracking_version: 2 }],
      ['every field', {
        event: 'E', channel: 'app', icon: '📦', description: 'Bundle 1.0.0', notify: true, parser: 'markdown', notifyConsole: false,
        user_id: people.bob, tracking_version: 2, org_id: orgs.acme, tags: { n: 1.50, org_id: orgs.evil }, nonPersonTags: { cli: '8' },
        timestamp: '2026-01-02T03:04:05.678Z', event_id: uuidV7(Date.parse('2026-01-02T03:04:05.678Z')), colour: 'red' }, adminKey, {
        ...acme, tracking_version: 2, channel: 'app', icon: '📦', description: 'Bundle 1.0.0', notify: true, parser: 'markdown',
        tags: { n: 1.5, org_id: orgs.acme }, context: { cli: '8' }, occurred_at: '2026-01-02T03:04:05.678+00:00' }],
    ]
    test.each(payloads)('%s', async (_, payload, headers, row) => {
      expect(await send(payload, headers)).toEqual({ status: 200, body: { status: 'ok' } })
      const [byDoor] = await rows()
      expect(byDoor).toMatchObject(row)

      await world.sql`truncate events`
      await world.withKey(headers.capgkey!).rpc('track_event', { v2: payload })
      expect([byDoor].map(withoutItsMoment)).toEqual((await rows()).map(withoutItsMoment))
    })

    test('what a real client sent: 16 recorded payloads make 16 rows, those that the RPC would make', async () => {
      const recorded = readFileSync(join(projectDir, 'tests/fixtures/capgo-cli-8.68.1.jsonl'), 'utf8').trim().split('\n')
      for (const payload of recorded) {
        expect(await post(payload, { 'Content-Type': 'application/json', ...demoKey })).toEqual({ status: 200, body: { status: 'ok' } })
      }
      const byDoor = await rows()
      expect(byDoor).toHaveLength(16)
      expect(new Set(byDoor.map((row) => row.org_id))).toEqual(new Set([orgs.demo]))

      await world.sql`truncate events`
      for (const payload of recorded) await world.withKey(demoKey.capgkey).rpc('track_event', { v2: JSON.parse(payload) })
      expect(byDoor.map(withoutItsMoment)).toEqual((await rows()).map(withoutItsMoment))
    })

    test.each(['text/plain;charset=UTF-8', 'application/x-www-form-urlencoded', 'application/octet-stream', 'nonsense'])(
      'called %s', async (type) => {
        expect(await send({ event: 'E' }, { ...demoKey, 'content-type': type })).toEqual({ status: 200, body: { status: 'ok' } })
      })

    test('in chunks, without a length', async () => {
      const chunks = ['{"event":', '"Chunked"}'].map((text) => new TextEncoder().encode(text))
      const body = new ReadableStream({ pull: (to) => { const next = chunks.shift(); next ? to.enqueue(next) : to.close() } })
      expect(await ask(door, '/private/events', { method: 'POST', headers: demoKey, body, duplex: 'half' } as RequestInit))
        .toEqual({ status: 200, body: { status: 'ok' } })
    })

    test('with every digit of a number', async () => {
      await post('{"event":"E","tags":{"n":12345678901234567890.123456789}}')
      expect(await world.sql`select tags ->> 'n' as n from events`).toEqual([{ n: '12345678901234567890.123456789' }])
    })

    test('twice, and the same event is one row', async () => {
      const payload = { event: 'E', event_id: uuidV7() }
      expect(await send(payload)).toEqual({ status: 200, body: { status: 'ok' } })
      expect(await send(payload)).toEqual({ status: 200, body: { status: 'ok' } })
      expect(await rows()).toHaveLength(1)
    })
  })

  describe('refuses what the database refuses, in the words of old', () => {
    const mayNot = 'Ask an admin of the organization for a role, or leave the organization out.'
    const refused: [title: string, payload: object, status: number, answer: object][] = [
      ['version 2 for an organization of others', { ...v2, org_id: orgs.evil }, 403, {
        error: 'no_permission', message: `The caller may not read the organization ${orgs.evil}.`, hint: mayNot, moreInfo: {} }],
      ['version 2 for an organization that the app is not of', { ...v2, org_id: orgs.evil, tags: { app_id: 'com.acme.app' } }, 403, {
        error: 'no_permission', message: `The caller may not read the app 'com.acme.app' of the organization ${orgs.evil}.`, hint: mayNot, moreInfo: {} }],
      ['version 1 for an organization of others', { event: 'E', user_id: orgs.evil }, 403, {
        error: 'no_permission', message: `The caller may not read the organization ${orgs.evil}.`, hint: mayNot, moreInfo: {} }],
      ['an event without a name', { channel: 'app' }, 400, {
        error: 'missing_event', message: 'The event has no name.', hint: 'Send the name of what happened as "event".', moreInfo: {} }],
      ['a version to come', { event: 'E', tracking_version: 3 }, 400, {
        error: 'unsupported_tracking_version', message: '\'3\' is not a tracking version.',
        hint: 'Send tracking_version 2, or leave it out for version 1.', moreInfo: {} }],
      ['tags of 33 KB', { event: 'E', tags: { text: 'x'.repeat(33_000) } }, 413, {
        error: 'payload_too_large', message: 'tags and nonPersonTags take more than 32 KB.',
        hint: 'Send less: tags and nonPersonTags together take up to 32 KB, a batch up to 1,000 events.', moreInfo: {} }],
    ]
    test.each(refused)('%s', async (_, payload, status, body) => {
      expect(await send(payload, adminKey)).toEqual({ status, body })
      expect(await rows()).toEqual([])
    })

    test('more than a caller may send', async () => {
      await world.sql`update tracking.settings set events_per_minute = 1`
      try {
        // A minute may end between two of them.
        const answers = [await send({ event: 'E' }), await send({ event: 'E' }), await send({ event: 'E' })]
        expect(answers.find(({ status }) => status === 429)).toMatchObject({ body: { error: 'too_many_requests', moreInfo: {} } })
      } finally {
        await world.sql`update tracking.settings set events_per_minute = null`
      }
    })
  })

  describe('shows an event in the consoles of an organization', () => {
    const console = { channel: 'app', event: 'Bundle Uploaded', description: 'Live', icon: '📦', notifyConsole: true }

    test.each([
      ['version 1', { ...console, user_id: orgs.acme, tags: { 'app-id': 'com.acme.app', channel: 'production', bundle: '1.0.0' } }],
      ['version 2', { ...console, org_id: orgs.acme, tracking_version: 2, tags: { 'app-id': 'com.acme.app', channel: 'production', bundle: '1.0.0' } }],
    ])('that the caller may read, in %s, and records nothing', async (_, payload) => {
      expect(await send(payload, adminKey)).toEqual({ status: 200, body: { status: 'ok' } })
      expect(await rows()).toEqual([])
      const [message, ...others] = await world.sql`select topic, event, payload from realtime.messages`
      expect(others).toEqual([])
      expect(message).toMatchObject({ topic: `cli-events:org:${orgs.acme}`, event: 'cli-activity', payload: {
        event: 'Bundle Uploaded', channel: 'app', app_id: 'com.acme.app', org_id: orgs.acme, channel_name: 'production', bundle_name: '1.0.0' } })
    })

    test.each([
      ['version 1, with a key', { ...console, user_id: orgs.evil }, () => adminKey],
      ['version 1, with the app of another', { ...console, user_id: orgs.evil, tags: { 'app-id': 'com.acme.app' } }, () => adminKey],
      ['version 2, with a JWT', { ...console, org_id: orgs.acme, tracking_version: 2 }, () => ({ authorization: `Bearer ${tokens.eve}` })],
    ])('and of no other: 403 Forbidden to %s', async (_, payload, headers) => {
      expect(await send(payload, headers())).toMatchObject({ status: 403, body: { error: 'Forbidden', moreInfo: {} } })
      expect(await world.sql`select from realtime.messages`).toHaveLength(0)
    })

    test('and says 400 missing_org_id where none is named', async () => {
      expect(await send(console, adminKey)).toMatchObject({ status: 400, body: { error: 'missing_org_id', moreInfo: {} } })
      expect(await send({ ...console, tracking_version: 2 }, adminKey)).toMatchObject({ status: 400, body: { error: 'missing_org_id' } })
    })
  })

  describe('answers a body that is no event with 4xx', () => {
    const notJson = { error: 'invalid_json_parse_body', message: 'Invalid JSON body', moreInfo: {} }
    const noEvent = { error: 'invalid_payload', message: 'An event is a JSON object.' }
    const bodies: [title: string, body: string | Uint8Array<ArrayBuffer>, status: number, answer: object][] = [
      ['text', 'not json', 400, notJson],
      ['nothing', '', 400, notJson],
      ['white space', ' \n', 400, notJson],
      ['JSON that is cut off', '{"event":"E"', 400, notJson],
      ['JSON that goes on', '{"event":"E"}}', 400, notJson],
      ['a second argument for the RPC', '{"event":"E"},"v3":{}', 400, notJson],
      ['invalid UTF-8', Uint8Array.from([...Buffer.from('{"event":"'), 0xff, 0xfe, ...Buffer.from('"}')]), 400, notJson],
      ['null', 'null', 400, noEvent],
      ['an array', '[{"event":"E"}]', 400, noEvent],
      ['a number', '42', 400, noEvent],
      ['a string', '"E"', 400, noEvent],
      ['true', 'true', 400, noEvent],
      ['a NUL character', '{"event":"a\\u0000b"}', 400, { error: 'invalid_payload' }],
      ['half a surrogate pair', '{"event":"\\ud800"}', 400, { error: 'invalid_payload' }],
      ['a number that Postgres cannot hold', '{"event":"E","tags":{"n":1e999999}}', 400, { error: 'invalid_payload' }],
      ['JSON that is nested without end', `{"event":"E","tags":{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}}`, 400, { error: 'invalid_payload' }],
      ['1 MB and a byte', JSON.stringify('x'.repeat(1024 * 1024 - 1)), 413, { error: 'payload_too_large', message: 'The event takes more than 1 MB.', moreInfo: {} }],
    ]
    test.each(bodies)('%s', async (_, body, status, answer) => {
      expect(await post(body)).toMatchObject({ status, body: answer })
      expect(await rows()).toEqual([])
    })

    test('more than 1 MB in chunks, without a length', async () => {
      const chunk = new Uint8Array(300_000).fill(0x20)
      let left = 4
      const body = new ReadableStream({ pull: (to) => { left-- > 0 ? to.enqueue(chunk) : to.close() } })
      expect(await ask(door, '/private/events', { method: 'POST', headers: demoKey, body, duplex: 'half' } as RequestInit))
        .toMatchObject({ status: 413, body: { error: 'payload_too_large' } })
    })

    test('and any JSON with the status of the RPC, never with 5xx', async () => {
      await fc.assert(fc.asyncProperty(anyJson, async (json) => {
        const byDoor = await post(json)
        const byRpc = await fetch(`${world.api.url}/rest/v1/rpc/track_event`, {
          method: 'POST', body: `{"v2":${json}}`,
          headers: { 'apikey': publishableKey, 'x-api-key': demoKey.capgkey, 'content-type': 'application/json' },
        })
        expect(byDoor.status, JSON.stringify(byDoor.body)).toBe(byRpc.status)
        expect(byDoor.status).toBeLessThan(500)
      }), { numRuns: 100 })
    })
  })

  describe('GET /private/config', () => {
    test('is {} to everybody', async () => {
      expect(await ask(door, '/private/config')).toEqual({ status: 200, body: {} })
      expect(await ask(door, '/private/config', { headers: { capgkey: 'invalid_key' } })).toEqual({ status: 200, body: {} })
    })
  })

  describe('GET /app/:app_id', () => {
    const demoApp = { app_id: 'com.demo.app', name: 'Demo App', owner_org: orgs.demo }

    test.each([
      ['an API key', () => demoKey],
      ['an API key, as a client with a project key sends it', () => ({ ...demoKey, authorization: `Bearer ${publishableKey}` })],
      ['an API key, as a client without one sends it', () => ({ ...demoKey, 'authorization': demoKey.capgkey, 'content-type': 'application/json' })],
      ['a JWT', () => ({ authorization: `Bearer ${tokens.ada}` })],
      ['the service role', () => ({ apikey: secretKey })],
    ])('tells who owns the app to %s that may read it', async (_, headers) => {
      expect(await ask(door, '/app/com.demo.app', { headers: headers() })).toEqual({ status: 200, body: demoApp })
    })

    test.each([
      ['an app of others', 'com.acme.app', demoKey],
      ['an app that does not exist', 'com.none.app', demoKey],
      ['an app, to nobody', 'com.demo.app', {}],
      ['an app, to an unknown key', 'com.demo.app', { capgkey: 'invalid_key' }],
      ['an app, to a revoked key', 'com.demo.app', { capgkey: 'as_local_revoked' }],
    ])('says 401 cannot_access_app of %s', async (_, id, headers) => {
      expect(await ask(door, `/app/${id}`, { headers })).toEqual({
        status: 401, body: { error: 'cannot_access_app', message: 'You can\'t access this app', moreInfo: {} } })
    })

    test('says 401 invalid_jwt to a bad token', async () => {
      expect(await ask(door, '/app/com.demo.app', { headers: { authorization: 'Bearer invalid_token' } }))
        .toMatchObject({ status: 401, body: { error: 'invalid_jwt' } })
    })

    test.each(['*', 'null', '(a,b)', 'in.(com.demo.app)', 'com.demo.app,com.acme.app', 'com.demo.app&or=(app_id.neq.x)', '"', '%', 'a/b', '😀'])(
      'takes %s for an id, and for nothing else', async (id) => {
        expect(await ask(door, `/app/${encodeURIComponent(id)}`, { headers: demoKey })).toMatchObject({ status: 401, body: { error: 'cannot_access_app' } })
      })

    test('answers 400 to an id that no text can be', async () => {
      expect(await ask(door, '/app/%00', { headers: demoKey })).toMatchObject({ status: 400, body: { error: 'invalid_payload' } })
    })
  })

  describe('other requests', () => {
    test.each([
      ['GET', '/private/events', 'POST'], ['HEAD', '/private/events', 'POST'], ['PUT', '/private/events', 'POST'],
      ['PATCH', '/private/events', 'POST'], ['DELETE', '/private/events', 'POST'],
      ['POST', '/private/config', 'GET, HEAD'], ['PUT', '/app/com.demo.app', 'GET, HEAD'], ['DELETE', '/app/com.demo.app', 'GET, HEAD'],
    ])('%s %s is 405, and names what is allowed', async (method, path, allowed) => {
      const answer = await door.request(path, { method, headers: demoKey })
      expect([answer.status, answer.headers.get('allow')]).toEqual([405, `${allowed}, OPTIONS`])
      if (method !== 'HEAD') expect(await answer.json()).toEqual({ error: 'method_not_allowed', message: `Only ${allowed} is answered here`, moreInfo: {} })
    })

    test.each(['/private/nope', '/private', '/private/events/1', '/private/stats', '/app', '/app/a/b'])('%s is 404', async (path) => {
      expect(await ask(door, path, { method: 'POST', body: '{}' })).toEqual({ status: 404, body: { error: 'not_found', message: 'Not found', moreInfo: {} } })
    })

    test('HEAD of what can be read is answered without a body', async () => {
      const answer = await door.request('/app/com.demo.app', { method: 'HEAD', headers: demoKey })
      expect([answer.status, await answer.text()]).toEqual([200, ''])
    })
  })

  describe('to a page from elsewhere', () => {
    const origin = 'http://localhost:5173'

    test.each([['/private/events', 'POST'], ['/private/config', 'GET'], ['/app/com.demo.app', 'GET']])(
      'says beforehand that %s may be asked with %s and credentials of any kind', async (path, method) => {
        const asked = ['apikey', 'authorization', 'capgkey', 'content-type', 'x-api-key', 'x-client-info']
        const answer = await door.request(path, { method: 'OPTIONS', headers: {
          origin, 'access-control-request-method': method, 'access-control-request-headers': asked.join(',') } })
        expect(answer.status).toBe(204)
        expect(answer.headers.get('access-control-allow-origin')).toBe('*')
        expect(listIn(answer, 'access-control-allow-methods')).toContain(method)
        expect(listIn(answer, 'access-control-allow-headers')).toEqual(asked)
      })

    test.each([[200, demoKey, '{"event":"E"}'], [400, demoKey, 'not json'], [401, {}, '{"event":"E"}']])(
      'lets it read the answer %i', async (status, headers, body) => {
        const answer = await door.request('/private/events', { method: 'POST', body, headers: { origin, ...headers } })
        expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([status, '*'])
        expect(listIn(answer, 'access-control-expose-headers')).toContain('Retry-After')
      })
  })
})

test('TRACE, which no fetch can send, is 405 in the local stack', async () => {
  const status = await new Promise((done, fail) => {
    const sent = request(`${world.api.url}/functions/v1/private/events`, { method: 'TRACE' }, (answer) => done(answer.resume().statusCode))
    sent.on('error', fail).end()
  })
  expect(status).toBe(405)
})

describe.each([
  ['in real Deno', async (dataApi: string) => {
    const { url, stop } = await runInDeno('private', { SUPABASE_URL: dataApi, SUPABASE_ANON_KEY: publishableKey })
    return { request: (path, init) => fetch(`${url}${path}`, init), close: stop } satisfies Door
  }],
  ['in the local stack', async (dataApi: string) => openInProcess(dataApi)],
] as const)('where the Data API fails, the door %s', (_, open) => {
  const ends: (() => Promise<void>)[] = []
  beforeEach(() => { vi.spyOn(console, 'error').mockImplementation(() => {}) })
  afterEach(async () => {
    vi.restoreAllMocks()
    for (const end of ends.splice(0).reverse()) await end()
  })

  const failures: [what: string, status: number, headers: Headers, body: string][] = [
    ['500', 500, {}, '{"code":"XX000","message":"boom","details":null,"hint":null}'],
    ['a statement that took too long', 500, {}, '{"code":"57014","message":"canceling statement due to statement timeout"}'],
    ['a gateway\'s page', 502, { 'content-type': 'text/html' }, '<h1>Bad Gateway</h1>'],
    ['a project without track_event', 404, {}, '{"code":"PGRST202","message":"Could not find the function"}'],
    ['200 from somebody else', 200, { 'content-type': 'text/html' }, '<h1>Welcome</h1>'],
    ['200 and null', 200, {}, 'null'],
  ]
  test.each(failures)('says 503 and when to come again, to %s', async (_, status, headers, body) => {
    const upstream = await upstreamThat((response) => response.writeHead(status, headers).end(body))
    const answer = await answerOver(upstream.url)
    expect([answer.status, answer.headers.get('retry-after'), await answer.json()]).toEqual([503, '5', {
      error: 'service_unavailable', message: 'The database cannot be reached; try again later', moreInfo: {} }])
  })

  test('says 503 where the connection breaks, and where there is nobody', async () => {
    const upstream = await upstreamThat((response) => response.destroy())
    expect((await answerOver(upstream.url)).status).toBe(503)
    await upstream.close()
    expect((await answerOver(upstream.url)).status).toBe(503)
  })

  test('passes on when to come again', async () => {
    const busy = await upstreamThat((response) => response.writeHead(503, { 'retry-after': '70' }).end('{}'))
    const [unavailable, limited] = [await answerOver(busy.url), await upstreamThat((response) => response.writeHead(429, { 'retry-after': '9' }).end('{}'))]
    expect([unavailable.status, unavailable.headers.get('retry-after')]).toEqual([503, '70'])
    const answer = await answerOver(limited.url)
    expect([answer.status, answer.headers.get('retry-after'), await answer.json()]).toMatchObject([429, '9', { error: 'too_many_requests' }])
  })

  test('says 400 to nesting that PostgREST calls a fault of its own', async () => {
    const upstream = await upstreamThat((response) => response.writeHead(500).end('{"code":"54001","message":"stack depth limit exceeded"}'))
    const answer = await answerOver(upstream.url)
    expect([answer.status, await answer.json()]).toMatchObject([400, { error: 'invalid_payload', message: 'stack depth limit exceeded' }])
  })

  test('never carries a key to where a redirect points', async () => {
    const elsewhere = await upstreamThat((response) => response.end('{"status":"ok"}'))
    const upstream = await upstreamThat((response) => response.writeHead(307, { location: elsewhere.url }).end())
    expect((await answerOver(upstream.url)).status).toBe(503)
    expect([upstream.requests.length, elsewhere.requests.length]).toEqual([1, 0])
  })

  test('passes on what a project of one\'s own refuses', async () => {
    const upstream = await upstreamThat((response) => response.writeHead(402).end('{"code":"PT402","message":"plan_exhausted","details":"Pay first.","hint":"Pay."}'))
    const answer = await answerOver(upstream.url)
    expect([answer.status, await answer.json()]).toEqual([402, { error: 'plan_exhausted', message: 'Pay first.', hint: 'Pay.', moreInfo: {} }])
  })

  const jwt = signToken(claims)
  const project = { apikey: publishableKey }
  test.each<[what: string, sent: Headers, told: Headers]>([
    ['a JWT', { authorization: `Bearer ${jwt}` }, { ...project, authorization: `Bearer ${jwt}` }],
    ['a JWT without a scheme', { authorization: jwt }, { ...project, authorization: `Bearer ${jwt}` }],
    ['a token that is none, to be refused', { authorization: 'Bearer x', capgkey: 'key' }, { ...project, authorization: 'Bearer x', capgkey: 'key' }],
    ['API keys', { 'x-api-key': 'one', 'capgkey': 'two' }, { ...project, 'x-api-key': 'one', 'capgkey': 'two' }],
    ['an API key in Authorization', { authorization: 'key' }, { ...project, 'x-api-key': 'key' }],
    ['an API key in Authorization, and another where it belongs', { authorization: 'key', capgkey: 'other' }, { ...project, capgkey: 'other' }],
    ['a project key in Authorization', { authorization: 'Bearer sb_secret_x', capgkey: 'key' }, { apikey: 'sb_secret_x', capgkey: 'key' }],
    ['project keys in both', { authorization: 'Bearer sb_publishable_x', apikey: 'sb_publishable_y' }, { apikey: 'sb_publishable_y' }],
    ['nothing', {}, project],
  ])('has told it %s, each credential in its own header, and no more of the request', async (_, sent, told) => {
    const upstream = await upstreamThat((response) => response.end('{"status":"ok"}'))
    const door = await openOver(upstream.url)
    await door.request('/private/events', { method: 'POST', body: '{"event":"E"}', headers: {
      ...sent, 'cookie': 'a=b', 'x-forwarded-for': '1.2.3.4', 'prefer': 'tx=rollback', 'x-client-info': 'cli' } })
    const { url, headers, body } = upstream.requests[0]!
    expect([url, body.toString()]).toEqual(['/rest/v1/rpc/track_event', '{"v2":{"event":"E"}}'])
    const names = ['apikey', 'authorization', 'capgkey', 'x-api-key', 'cookie', 'x-forwarded-for', 'prefer', 'x-client-info']
    expect(Object.fromEntries(names.filter((name) => name in headers).map((name) => [name, headers[name]]))).toEqual(told)
  })

  async function upstreamThat(answer: Parameters<typeof startUpstream>[0]) {
    const upstream = await startUpstream(answer)
    ends.push(() => upstream.close())
    return upstream
  }

  async function openOver(dataApi: string): Promise<Door> {
    const door = await open(dataApi)
    ends.push(() => door.close())
    return door
  }

  async function answerOver(dataApi: string): Promise<Response> {
    return (await openOver(dataApi)).request('/private/events', { method: 'POST', body: '{"event":"E"}', headers: demoKey })
  }
})

describe('a door over a Data API that does not answer', () => {
  let upstream: Upstream
  beforeEach(async () => { upstream = await startUpstream(() => {}) })
  afterEach(async () => {
    vi.restoreAllMocks()
    await upstream.close()
  })

  test('says 503 in the end, and tells the operator why', async () => {
    const told = vi.spyOn(console, 'error').mockImplementation(() => {})
    expect(await ask(openInProcess(upstream.url, 200), '/private/events', { method: 'POST', body: '{"event":"E"}', headers: demoKey }))
      .toMatchObject({ status: 503, body: { error: 'service_unavailable' } })
    expect(told.mock.calls).toEqual([[
      'The Data API could not be asked at POST /private/events:', 0, expect.objectContaining({ name: 'TimeoutError' })]])
  })
})

async function tokenOf(email: string): Promise<string> {
  const { data } = await (await world.signIn(email)).auth.getSession()
  return data.session!.access_token
}

async function ask(door: Door, path: string, init?: RequestInit): Promise<{ status: number, body: any }> {
  const answer = await door.request(path, init)
  return { status: answer.status, body: await answer.json() }
}

async function rows(): Promise<Record<string, unknown>[]> {
  return (await world.sql`select to_jsonb(e) as row from events as e order by e.event_id`).map(({ row }) => row)
}

/** A row without what differs from one moment to the next. */
function withoutItsMoment(row: Record<string, unknown> | undefined): object {
  const { event_id, occurred_at, received_at, txid, ...rest } = row ?? {}
  return rest
}

function listIn(answer: Response, header: string): string[] {
  return (answer.headers.get(header) ?? '').split(',').map((item) => item.trim())
}
