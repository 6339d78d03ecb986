import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { publishableKey } from '../src/api.ts'
import { launchChromium } from './chromium.ts'
import { people } from './demo.ts'
import { startUpstream, type Upstream } from './doors.ts'
import { createWorld, type World } from './world.ts'

let world: World
beforeAll(async () => { world = await createWorld() })
afterAll(() => world?.close())

describe('the local stack tells a page from elsewhere', () => {
  const origin = 'http://localhost:5173'

  test.each([
    ['POST', '/rest/v1/rpc/track_event'], ['GET', '/rest/v1/events?select=event'], ['PATCH', '/rest/v1/build_requests'],
    ['POST', '/auth/v1/token?grant_type=password'], ['GET', '/auth/v1/user'], ['POST', '/functions/v1/private/events'],
  ])('beforehand, that it may send %s %s with headers of any kind', async (method, path) => {
    const headers = 'apikey,authorization,capgkey,content-type,prefer,x-api-key,x-client-info'
    const answer = await fetch(`${world.api.url}${path}`, { method: 'OPTIONS', headers: {
      origin, 'access-control-request-method': method, 'access-control-request-headers': headers } })
    expect(answer.status).toBe(204)
    expect(answer.headers.get('access-control-allow-origin')).toBe('*')
    expect(answer.headers.get('access-control-allow-methods')).toContain(method)
    expect(answer.headers.get('access-control-allow-headers')).toBe(headers)
  })

  test.each([
    ['a row of nobody\'s', '/rest/v1/events', 200, {}],
    ['a refusal of the database', '/rest/v1/rpc/track_event', 401, { method: 'POST', body: '{"v2":{"event":"E"}}' }],
    ['a bad token', '/rest/v1/events', 401, { headers: { authorization: 'Bearer x' } }],
    ['a wrong password', '/auth/v1/token?grant_type=password', 400, { method: 'POST', body: '{"email":"ada@acme.test","password":"x"}' }],
    ['a path that is none', '/nowhere', 404, {}],
  ])('%s', async (_, path, status, init: RequestInit) => {
    const headers = { origin, 'apikey': publishableKey, 'content-type': 'application/json', ...init.headers }
    const answer = await fetch(`${world.api.url}${path}`, { ...init, headers })
    expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([status, '*'])
    expect(answer.headers.get('access-control-expose-headers')).toContain('Retry-After')
  })
})

describe('a page in Chromium', () => {
  let chromium: Awaited<ReturnType<typeof launchChromium>>
  let site: Upstream
  beforeAll(async () => {
    site = await startUpstream((response) => response.setHeader('content-type', 'text/html').end('<!doctype html><title>A site</title>'))
    chromium = await launchChromium()
  })
  afterAll(async () => {
    await chromium?.close()
    await site?.close()
  })

  test('signs in, sends events with a JWT and with an API key, and reads why one is refused', async () => {
    const page = await chromium.browser.newPage()
    await page.goto(site.url)
    const answers = await page.evaluate(async ({ api, apikey }) => {
      const post = async (path: string, headers: Record<string, string>, body: object) => {
        const answer = await fetch(`${api}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
        return { status: answer.status, body: await answer.json() as any }
      }
      const session = await post('/auth/v1/token?grant_type=password', { apikey, 'x-client-info': 'a page' }, { email: 'bob@acme.test', password: 'password' })
      const authorization = `Bearer ${session.body.access_token}`
      return [
        await post('/rest/v1/rpc/track_event', { apikey, authorization, 'x-client-info': 'a page' }, { v2: { event: 'By RPC' } }),
        await post('/functions/v1/private/events', { authorization }, { event: 'By the door' }),
        await post('/functions/v1/private/events', { capgkey: 'as_local_acme_admin' }, { event: 'By key' }),
        await post('/functions/v1/private/events', { capgkey: 'invalid_key' }, { event: 'Nobody\'s' }),
      ]
    }, { api: world.api.url, apikey: publishableKey })
    expect(answers).toMatchObject([
      { status: 200, body: { status: 'ok' } }, { status: 200, body: { status: 'ok' } }, { status: 200, body: { status: 'ok' } },
      { status: 401, body: { error: 'invalid_apikey' } }])
    expect(await world.sql`select event, actor_id from events order by event`).toEqual([
      { event: 'By RPC', actor_id: people.bob }, { event: 'By key', actor_id: people.ada }, { event: 'By the door', actor_id: people.bob }])
  })
})
