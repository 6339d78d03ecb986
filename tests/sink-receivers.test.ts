import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startBento, startLogSnag, startPostHog, startWebhook, type Receiver } from './receivers.ts'

// The receivers that the sinks are tested with are no pushovers: each breach of a vendor's contract is answered.

const receivers: Record<string, Receiver<never>> = {}
const json = { 'content-type': 'application/json' }
const login = `Basic ${btoa('pub:sec')}`
const bentoHeaders = { ...json, authorization: login, 'user-agent': 'actorscope/0.1.0' }
const uuid = '019565a3-fa3b-7000-8000-000000000001'
const captured = { uuid, event: 'E', distinct_id: 'd', timestamp: '2026-11-05T09:30:00.123Z', properties: {} }
const log = { project: 'demo', channel: 'c', event: 'E' }
const recorded = { type: 'E', email: 'a@b.cd' }

beforeAll(async () => {
  Object.assign(receivers, {
    posthog: await startPostHog('phc'),
    logsnag: await startLogSnag('tok', 'demo'),
    bento: await startBento({ siteUuid: 's', publishableKey: 'pub', secretKey: 'sec', requestsPerMinute: 1000 }),
    webhook: await startWebhook(`whsec_${btoa('x'.repeat(24))}`),
  })
})
afterAll(() => Promise.all(Object.values(receivers).map((receiver) => receiver.close())))

type Attempt = { path?: string, method?: string, headers?: Record<string, string>, body?: unknown }

const usual: Record<string, Required<Pick<Attempt, 'path' | 'headers'>>> = {
  posthog: { path: '/batch/', headers: json },
  logsnag: { path: '/v1/log', headers: { ...json, authorization: 'Bearer tok' } },
  bento: { path: '/api/v1/batch/events?site_uuid=s', headers: bentoHeaders },
  webhook: { path: '/hooks', headers: json },
}

/** Attempts what is usual with a vendor, but for what is named; answers with the status. */
async function send(vendor: string, attempt: Attempt): Promise<number> {
  const { path, headers, method = 'POST', body } = { ...usual[vendor]!, ...attempt }
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const url = receivers[vendor]!.url + path
  return (await fetch(url, { method, headers, ...method === 'POST' && { body: text } })).status
}

const batch = (...events: object[]) => ({ body: { api_key: 'phc', batch: events } })
const postHogEvent = (named: object) => batch({ ...captured, ...named })
const group = (properties: object) => postHogEvent({
  event: '$groupidentify', properties: { $group_type: 'organization', $group_key: 'k', ...properties } })
const history = (named: object) => ({
  body: { api_key: 'phc', historical_migration: true, batch: [{ ...captured, ...named }] } })

describe('PostHog', () => {
  test.each<[string, Attempt, number]>([
    ['an event', batch(captured), 200],
    ['history', history({ timestamp: '2025-11-05T09:30:00.123Z' }), 200],
    ['a group', group({ $group_set: { name: 'n' } }), 200],
    ['another path', { ...batch(captured), path: '/batch' }, 404],
    ['another method', { method: 'GET' }, 405],
    ['no JSON', { body: '{' }, 400],
    ['another content type', { ...batch(captured), headers: { 'content-type': 'text/plain' } }, 400],
    ['no key', { body: { batch: [captured] } }, 401],
    ['another key', { body: { api_key: 'phx', batch: [captured] } }, 401],
    ['no batch', { body: { api_key: 'phc' } }, 400],
    ['an empty batch', batch(), 400],
    ['an unknown field', { body: { api_key: 'phc', batch: [captured], historical: true } }, 400],
    ['a flag that is none', { body: { api_key: 'phc', historical_migration: 'true', batch: [captured] } }, 400],
    ['history of today', history({ timestamp: new Date().toISOString() }), 400],
    ['no name', postHogEvent({ event: '' }), 400],
    ['a long name', postHogEvent({ event: 'x'.repeat(201) }), 400],
    ['no id', postHogEvent({ distinct_id: undefined }), 400],
    ['an id that is forbidden', postHogEvent({ distinct_id: 'Anonymous ' }), 400],
    ['the nil UUID', postHogEvent({ distinct_id: '00000000-0000-0000-0000-000000000000' }), 400],
    ['a uuid that is none', postHogEvent({ uuid: 'u' }), 400],
    ['a time without an offset', postHogEvent({ timestamp: '2026-11-05T09:30:00' }), 400],
    ['no properties', postHogEvent({ properties: undefined }), 400],
    ['$set that is no object', postHogEvent({ properties: { $set: 1 } }), 400],
    ['$groups that are no keys', postHogEvent({ properties: { $groups: { organization: null } } }), 400],
    ['a group without properties', group({ $group_set: {} }), 400],
    ['a group without a key', group({ $group_key: '', $group_set: { name: 'n' } }), 400],
    ['a field of an event that is unknown', postHogEvent({ user_id: 'x' }), 400],
    ['one bad event among good ones', batch(captured, { ...captured, event: '' }), 400],
    ['an event of more than 1 MB', postHogEvent({ properties: { x: 'x'.repeat(1_000_001) } }), 413],
    ['a body of more than 20 MB', { body: 'x'.repeat(20_000_001) }, 413],
  ])('answers %s', async (_, attempt, status) => {
    expect(await send('posthog', attempt)).toBe(status)
  })
})

describe('PostHog, told to delete persons', () => {
  const path = '/api/projects/12345/persons/bulk_delete/'
  const owner = { ...json, authorization: 'Bearer phx_personal' }
  const persons = (body: object, more: object = {}) => ({ path, headers: owner, body, ...more })
  test.each<[string, Attempt, number]>([
    ['persons', persons({ distinct_ids: ['d'], delete_events: true, delete_recordings: true }), 202],
    ['another path', persons({ distinct_ids: ['d'] }, { path: path.slice(0, -1) }), 404],
    ['another project', persons({ distinct_ids: ['d'] }, { path: path.replace('12345', '6') }), 403],
    ['the project\'s key', persons({ distinct_ids: ['d'] }, { headers: { ...json, authorization: 'Bearer phc' } }), 401],
    ['another method', { path, headers: owner, method: 'DELETE' }, 405],
    ['nobody', persons({ distinct_ids: [] }), 400],
    ['1,001 persons', persons({ distinct_ids: Array(1001).fill('d') }), 400],
    ['a flag that is none', persons({ distinct_ids: ['d'], delete_events: 'true' }), 400],
    ['an unknown field', persons({ distinct_ids: ['d'], events: true }), 400],
  ])('answers %s', async (_, attempt, status) => {
    expect(await send('posthog', attempt)).toBe(status)
  })
})

describe('LogSnag', () => {
  test.each<[string, Attempt, number]>([
    ['a log', { body: {
      ...log, description: 'd', icon: '🎉', notify: true, tags: { 'a-b': 1, c: 'd', e: false }, parser: 'markdown',
      user_id: 'u', timestamp: 1_795_088_731 } }, 200],
    ['another token', { body: log, headers: { ...json, authorization: 'Bearer x' } }, 401],
    ['another path', { body: log, path: '/v1/logs' }, 404],
    ['another project', { body: { ...log, project: 'x' } }, 400],
    ['a channel with capitals', { body: { ...log, channel: 'C' } }, 400],
    ['no event', { body: { ...log, event: undefined } }, 400],
    ['an unknown field', { body: { ...log, channels: 'c' } }, 400],
    ['an icon that is none', { body: { ...log, icon: 'house' } }, 400],
    ['two icons', { body: { ...log, icon: '🎉🎉' } }, 400],
    ['a tag with an underscore', { body: { ...log, tags: { a_b: 1 } } }, 400],
    ['a tag with a capital', { body: { ...log, tags: { aB: 1 } } }, 400],
    ['a tag with a digit', { body: { ...log, tags: { a1: 1 } } }, 400],
    ['a tag that is an object', { body: { ...log, tags: { a: {} } } }, 400],
    ['a tag that is null', { body: { ...log, tags: { a: null } } }, 400],
    ['a time in milliseconds', { body: { ...log, timestamp: 1_795_088_731_000 } }, 400],
    ['a time that is no number', { body: { ...log, timestamp: '2026-11-05T09:30:00Z' } }, 400],
    ['another parser', { body: { ...log, parser: 'html' } }, 400],
    ['notify that is a text', { body: { ...log, notify: 'true' } }, 400],
  ])('answers %s', async (_, attempt, status) => {
    expect(await send('logsnag', attempt)).toBe(status)
  })
})

describe('Bento', () => {
  const events = (...all: object[]) => ({ body: { events: all } })
  test.each<[string, Attempt, number]>([
    ['an event',
      events({ ...recorded, date: '2026-11-05T09:30:00Z', details: { a: { b: [] } }, fields: { a: 1 } }), 200],
    ['no User-Agent of one\'s own', { ...events(recorded), headers: { ...bentoHeaders, 'user-agent': 'node' } }, 403],
    ['another login',
      { ...events(recorded), headers: { ...bentoHeaders, authorization: `Basic ${btoa('pub:x')}` } }, 401],
    ['no site', { ...events(recorded), path: '/api/v1/batch/events' }, 401],
    ['another path', { ...events(recorded), path: '/batch/events?site_uuid=s' }, 404],
    ['no events', events(), 400],
    ['1,000 events', events(...Array(1000).fill(recorded)), 200],
    ['1,001 events', events(...Array(1001).fill(recorded)), 400],
    ['no email', events({ type: 'E' }), 400],
    ['an email that is none', events({ ...recorded, email: 'a@b' }), 400],
    ['no type', events({ email: 'a@b.cd' }), 400],
    ['fields that are nested', events({ ...recorded, fields: { a: {} } }), 400],
    ['details that are a text', events({ ...recorded, details: 'd' }), 400],
    ['a date that is none', events({ ...recorded, date: 'today' }), 400],
    ['an unknown field', events({ ...recorded, event: 'E' }), 400],
  ])('answers %s', async (_, attempt, status) => {
    expect(await send('bento', attempt)).toBe(status)
  })
})

describe('Bento, told to delete somebody', () => {
  const path = '/api/v1/data_deletion_requests'
  const headers = { ...bentoHeaders, 'content-type': 'application/x-www-form-urlencoded' }
  const somebody = (body: string, more: object = {}) => ({ path, headers, body, ...more })
  test.each<[string, Attempt, number]>([
    ['somebody it knows', somebody('site_uuid=s&data_deletion_request%5Bemail%5D=a%40b.cd'), 202],
    ['somebody it does not', somebody('site_uuid=s&data_deletion_request%5Bemail%5D=x%40b.cd'), 404],
    ['JSON', somebody('{"data_deletion_request": {"email": "a@b.cd"}}', { headers: bentoHeaders }), 401],
    ['another site', somebody('site_uuid=t&data_deletion_request%5Bemail%5D=a%40b.cd'), 401],
    ['no address', somebody('site_uuid=s'), 422],
  ])('answers %s', async (_, attempt, status) => {
    await send('bento', { body: { events: [recorded] } })
    receivers.bento!.forgotten.length = 0
    expect(await send('bento', attempt)).toBe(status)
  })
})

test('a webhook that is not signed, or has changed on its way, is refused', async () => {
  expect(await send('webhook', { body: {} })).toBe(400)
  const now = String(Math.floor(Date.now() / 1000))
  const headers = { ...json, 'webhook-id': 'i', 'webhook-timestamp': now, 'webhook-signature': 'v1,AAAA' }
  expect(await send('webhook', { body: {}, headers })).toBe(400)
})
