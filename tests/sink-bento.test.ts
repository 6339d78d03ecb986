import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { orgs, people } from './demo.ts'
import { startBento, type Receiver, type RecordedEvent } from './receivers.ts'
import { createSink, deadLetters, deliver, retryNow, rewind, trackIn, writeEvent, type Track } from './sending.ts'
import { createWorld, type World } from './world.ts'

const environment = { BENTO_PUBLISHABLE_KEY: 'pub_77ab', BENTO_SECRET_KEY: 'sec_91cd' }
const site = { siteUuid: 'site-1', publishableKey: 'pub_77ab', secretKey: 'sec_91cd', requestsPerMinute: 100_000 }
const carl = '10000000-0000-4000-8000-00000000000c'
const done = {
  event: 'onboarding-step-done', channel: 'onboarding-v2', org_id: orgs.acme, tags: { app_id: 'com.acme.app', step: 3 },
}

let world: World
let track: Track
let bento: Receiver<RecordedEvent>

beforeAll(async () => {
  world = await createWorld()
  track = trackIn(world)
  bento = await startBento(site)
  // A second admin of Acme.
  await world.sql`insert into auth.users (id, email) values (${carl}, 'carl@acme.test')`
  await world.sql`
    insert into tracking.role_bindings (principal_id, role, org_id) values (${carl}, 'admin', ${orgs.acme})`
})
beforeEach(async () => {
  await world.sql`delete from tracking.sinks`
  await world.sql`truncate public.events, tracking.mail_claims, tracking.mail_optouts`
  // One window for all, whatever the time of day.
  await world.sql`update tracking.reactions set at_most_every = '36500 days' where name = 'onboarding-step-done'`
  bento.options = {}
  bento.clear()
})
afterEach(() => expect(bento.breaches).toEqual([]))
afterAll(async () => {
  await bento?.close()
  await world?.close()
})

describe('an event', () => {
  test('arrives as one of the actor\'s email address', async () => {
    await setUp()
    await track('ada@acme.test', {
      event: 'Report Exported', channel: 'reports', description: 'As CSV', org_id: orgs.acme,
      tags: { app_id: 'com.acme.app', format: 'csv', deep: { a: [1] } }, nonPersonTags: { os: 'linux' } })
    expect(await deliver(world.sql, 'bento', { environment })).toBeNull()
    expect(bento.taken).toEqual([{
      type: 'Report Exported', email: 'ada@acme.test',
      date: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      details: {
        os: 'linux', app_id: 'com.acme.app', org_id: orgs.acme, format: 'csv', deep: { a: [1] }, channel: 'reports',
        description: 'As CSV', event_id: expect.stringMatching(/^[0-9a-f-]{36}$/) },
    }])
    expect(bento.requests[0]!.headers['user-agent']).toBe('actorscope/0.1.0')
  })

  test('of nobody who has an address is handed back, and the others are sent together', async () => {
    await setUp()
    await track('ada@acme.test', { event: 'First' })
    await world.service().rpc('track_events', { v2: [
      { event: 'Nobody\'s', tracking_version: 2, org_id: orgs.acme },
      { event: 'A stranger\'s', tracking_version: 2, user_id: orgs.evil }] })
    await track('ada@acme.test', { event: 'Last' })
    expect(await deliver(world.sql, 'bento', { environment })).toBeNull()
    expect(bento.requests).toHaveLength(1)
    expect(types()).toEqual(['First', 'Last'])
    expect(await deadLetters(world.sql, 'bento')).toEqual([
      ['Nobody\'s', 'The event has no actor, and so no email address.'],
      ['A stranger\'s', 'The actor has no email address.']])
  })

  test('of a client does not pass for one of Bento\'s own', async () => {
    await setUp()
    await track('ada@acme.test', { event: '$purchase', tags: { value: { amount: 1e9 } } })
    const payload = { event: '$purchase', tracking_version: 2, user_id: people.ada }
    await world.service().rpc('track_event', { v2: payload })
    await deliver(world.sql, 'bento', { environment })
    expect(types()).toEqual(['$purchase'])
    expect(await deadLetters(world.sql, 'bento')).toEqual([
      ['$purchase', '"$purchase" is Bento\'s own, such as $purchase: a client\'s event may not have that name.']])
  })

  test('that Bento fails to record is found, though it does not say which', async () => {
    await setUp()
    await track('ada@acme.test', ...['1', '2', 'Poison', '4'].map((event) => ({ event })))
    bento.options = { poison: ({ type }) => type === 'Poison' }
    expect(await deliver(world.sql, 'bento', { environment })).toBeNull()
    expect(new Set(types())).toEqual(new Set(['1', '2', '4']))
    expect(await deadLetters(world.sql, 'bento')).toEqual([['Poison', 'Bento failed to record 1 of 1 events.']])
  })

  test('is not taken by a page', async () => {
    await setUp()
    await track('ada@acme.test', { event: 'First' })
    bento.options = { fault: () => ({ status: 200, text: '<html>Just a moment</html>' }) }
    expect(await deliver(world.sql, 'bento', { environment })).toMatchObject({
      kind: 'retry', message: 'The sink "bento" is answered by something that is no Bento.' })
  })

  test('waits its turn: requests keep to a number a minute', async () => {
    await setUp({ requests_per_minute: 40 }) // eight at once, then one in 1.875 seconds
    await track('ada@acme.test', ...Array.from({ length: 9 }, (_, n) => ({ event: String(n) })))
    const begun = performance.now()
    await deliver(world.sql, 'bento', { environment, size: 1 })
    expect(performance.now() - begun).toBeGreaterThan(1800)
    expect(types()).toHaveLength(9)
  })

  test('waits where others have used the number up', async () => {
    const strict = await startBento({ ...site, requestsPerMinute: 2 })
    await createSink(world.sql, 'strict', 'bento', { ...settings(), host: strict.url })
    await track('ada@acme.test', ...['1', '2', '3'].map((event) => ({ event })))
    expect(await deliver(world.sql, 'strict', { environment, size: 1 })).toMatchObject({ kind: 'retry', status: 429 })
    expect(strict.taken.map(({ type }) => type)).toEqual(['1', '2'])
    expect(await world.sql`select delivered::int, pending::int from tracking.sink_lag where sink = 'strict'`).toEqual([
      { delivered: 2, pending: 1 }])
    await strict.close()
  })

  test('goes with up to a thousand others', async () => {
    await setUp()
    const events = Array.from({ length: 1000 }, (_, n) => ({ event: `Event ${n}` }))
    await track('ada@acme.test', ...events)
    await track('ada@acme.test', ...events.slice(0, 200))
    expect(await deliver(world.sql, 'bento', { environment, size: 5000 })).toBeNull()
    expect(bento.requests.map(({ body }) => (body as { events: unknown[] }).events.length)).toEqual([1000, 200])
  })
})

describe('a mail', () => {
  const mail = (email: string) => ({
    type: 'app:updated', email,
    details: { org_id: orgs.acme, org_name: 'Acme', app_id: 'com.acme.app', app_name: 'Acme App' },
  })

  test('goes to the admins of the verified org, and nobody else', async () => {
    await setUp()
    await track('bob@acme.test', done)
    await deliver(world.sql, 'bento', { environment })
    expect(mails()).toEqual([mail('ada@acme.test'), mail('carl@acme.test')])
    expect(types()).toEqual(['app:updated', 'app:updated', 'onboarding-step-done'])
  })

  test('goes to none of them who has turned this kind of mail off', async () => {
    await world.sql`
      insert into tracking.mail_optouts (actor_id, preference)
      values (${people.ada}, 'onboarding'), (${carl}, 'other')`
    await setUp()
    await track('bob@acme.test', done)
    await deliver(world.sql, 'bento', { environment })
    expect(mails()).toEqual([mail('carl@acme.test')])
  })

  test.each([
    ['of another name', { ...done, event: 'onboarding-step' }],
    ['without an org', { ...done, org_id: undefined, user_id: orgs.acme, tags: { app_id: 'com.nobody' } }],
    ['without an app', { ...done, tags: {} }],
    ['of three days ago', { ...done, timestamp: new Date(Date.now() - 73 * 3_600_000).toISOString() }],
  ])('is not for an event %s', async (_, payload) => {
    await setUp()
    await track('ada@acme.test', payload)
    await deliver(world.sql, 'bento', { environment })
    expect(types()).toEqual([payload.event])
  })

  test('is for the org that owns the app, whatever user_id says', async () => {
    await setUp()
    await track('ada@acme.test', { ...done, org_id: undefined, user_id: orgs.evil })
    const tags = { app_id: 'com.demo.app' }
    await track('ada@acme.test', { ...done, tracking_version: 1, org_id: undefined, user_id: orgs.demo, tags })
    await deliver(world.sql, 'bento', { environment })
    expect(mails().map(({ email, details }) => [email, details!.org_name, details!.app_name])).toEqual([
      ['ada@acme.test', 'Acme', 'Acme App'], ['carl@acme.test', 'Acme', 'Acme App'],
      ['ada@acme.test', 'Demo', 'Demo App']])
  })

  test.each([['onboarding-v2'], ['app']])('is for the event in any channel, such as %s', async (channel) => {
    await setUp()
    await track('bob@acme.test', { ...done, channel })
    await deliver(world.sql, 'bento', { environment })
    expect(mails()).toEqual([mail('ada@acme.test'), mail('carl@acme.test')])
  })

  test('is sent once for an app and a window', async () => {
    await setUp()
    await track('bob@acme.test', done, done)
    await track('ada@acme.test', done, { ...done, tags: { app_id: 'com.acme.beta' } })
    await deliver(world.sql, 'bento', { environment, size: 1 })
    expect(mails().map(({ email, details }) => [email, details!.app_id])).toEqual([
      ['ada@acme.test', 'com.acme.app'], ['carl@acme.test', 'com.acme.app'],
      ['ada@acme.test', 'com.acme.beta'], ['carl@acme.test', 'com.acme.beta']])
  })

  test('is sent again in the next window, which is one of when events were received', async () => {
    await world.sql`update tracking.reactions set at_most_every = '1 minute' where name = 'onboarding-step-done'`
    await setUp()
    const noon = new Date(Date.now() - 86_400_000).setUTCHours(12, 0, 0, 0)
    for (const [n, seconds] of [10, 59, 61, 119].entries()) {
      const received_at = new Date(noon + 1000 * seconds).toISOString()
      await writeEvent(world.sql, { ...row, occurred: new Date(noon - 1000 * n), received_at })
    }
    await deliver(world.sql, 'bento', { environment, size: 1 })
    expect(mails().map(({ email }) => email)).toEqual(
      ['ada@acme.test', 'carl@acme.test', 'ada@acme.test', 'carl@acme.test'])
    expect(types().map((type) => type === 'app:updated' ? 'mail' : 'event')).toEqual(
      ['mail', 'mail', 'event', 'event', 'mail', 'mail', 'event', 'event'])
  })

  test('is sent by one of several sinks and workers, whoever comes first', async () => {
    await setUp()
    await createSink(world.sql, 'bento-two', 'bento', settings())
    await track('bob@acme.test', done)
    await Promise.all(['bento', 'bento-two'].map((sink) => deliver(world.sql, sink, { environment })))
    expect(mails()).toEqual([mail('ada@acme.test'), mail('carl@acme.test')])

    await world.sql`truncate tracking.mail_claims`
    const events = await Promise.all(Array.from({ length: 12 }, () => writeEvent(world.sql, row)))
    const asked = await Promise.all(events.map((id) => world.sql`
      select count(*)::int as n
      from   tracking.mails_due('bento', (
        select json_agg(e)::jsonb from public.events as e where e.event_id = ${id}))`))
    expect(asked.map(([answer]) => answer!.n).sort()).toEqual([...Array(11).fill(0), 2])
  })

  test('that failed is sent with the next try, the same to the byte', async () => {
    await setUp()
    await track('bob@acme.test', done)
    bento.options = { fault: (_, n) => n === 0 ? { status: 503 } : n === 1 ? { cut: 'before' } : undefined }
    expect(await deliver(world.sql, 'bento', { environment })).toBeNull()
    expect(mails()).toEqual([mail('ada@acme.test'), mail('carl@acme.test')])
    expect(new Set(bento.requests.slice(0, 3).map(({ text }) => text)).size).toBe(1)
  })

  test('that was sent is not sent again: not with the next try of its event, nor by a replay', async () => {
    await setUp()
    await track('bob@acme.test', done)
    bento.options = { fault: (_, n) => n === 1 ? { status: 503 } : undefined }
    expect(await deliver(world.sql, 'bento', { environment })).toBeNull()
    expect(bento.requests).toHaveLength(3)
    await rewind(world.sql, 'bento')
    await deliver(world.sql, 'bento', { environment })
    expect(types()).toEqual(['app:updated', 'app:updated', 'onboarding-step-done', 'onboarding-step-done'])
  })

  test('that is due still goes to nobody who has turned it off, or left, since', async () => {
    await setUp()
    await track('bob@acme.test', done)
    bento.options = { fault: () => ({ status: 503 }) }
    await deliver(world.sql, 'bento', { environment })
    await world.sql`insert into tracking.mail_optouts (actor_id, preference) values (${carl}, 'onboarding')`
    await world.sql`update tracking.role_bindings set role = 'admin' where principal_id = ${people.bob}`
    bento.options = {}
    await retryNow(world.sql, 'bento')
    await deliver(world.sql, 'bento', { environment })
    await world.sql`update tracking.role_bindings set role = 'viewer' where principal_id = ${people.bob}`
    expect(mails()).toEqual([mail('ada@acme.test')])
  })

  test('to more people than go in a request is sent to each once, though a request fails', async () => {
    await world.sql`
      insert into auth.users (id, email)
      select ('10000000-0000-4000-8000-0000000' || (90000 + n))::uuid, 'admin' || n || '@demo.test'
      from   generate_series(1, 1000) as n`
    await world.sql`
      insert into tracking.role_bindings (principal_id, role, org_id)
      select u.id, 'admin', ${orgs.demo} from auth.users as u where u.email like 'admin%@demo.test'`
    await setUp()
    await track('ada@acme.test', { ...done, org_id: orgs.demo, tags: { app_id: 'com.demo.app' } })
    bento.options = { fault: (_, n) => n > 0 ? { status: 500 } : undefined }
    expect(await deliver(world.sql, 'bento', { environment })).toMatchObject({ status: 500 })
    expect(mails()).toHaveLength(1000)
    bento.options = {}
    await retryNow(world.sql, 'bento')
    await deliver(world.sql, 'bento', { environment })
    expect(new Set(mails().map(({ email }) => email)).size).toBe(1001)
    expect(mails()).toHaveLength(1001)
  })

  test('may be all that a sink sends', async () => {
    await setUp({ mails_only: true })
    await track('bob@acme.test', done, { event: 'Other' })
    const payload = { event: 'Nobody\'s', tracking_version: 2, org_id: orgs.acme }
    await world.service().rpc('track_event', { v2: payload })
    expect(await deliver(world.sql, 'bento', { environment })).toBeNull()
    expect(bento.taken).toEqual([mail('ada@acme.test'), mail('carl@acme.test')])
    expect(await deadLetters(world.sql, 'bento')).toEqual([])
  })

  test('of another kind is a row', async () => {
    await world.sql`
      insert into tracking.reactions (name, event, channel, tags, mail, preference, details)
      values (
        'builder-done', 'Builder Onboarding Step', 'builder', '{"step": "done"}', 'builder:done', 'builds',
        '{step,platform}')`
    await setUp()
    const step = (step: string, channel: string) => ({
      event: 'Builder Onboarding Step', channel, org_id: orgs.acme,
      tags: { app_id: 'com.acme.app', step, platform: 'ios', secret: 'x', org_name: 'Forged' } })
    await track('bob@acme.test', step('started', 'builder'), step('done', 'other'))
    await deliver(world.sql, 'bento', { environment })
    expect(mails()).toEqual([])
    await track('bob@acme.test', step('done', 'builder'))
    await deliver(world.sql, 'bento', { environment })
    await world.sql`delete from tracking.reactions where name = 'builder-done'`
    const { details } = mail('')
    expect(mails().map(({ type, details }) => [type, details])).toEqual(
      Array(2).fill(['builder:done', { step: 'done', platform: 'ios', ...details }]))
  })

  test('to an address that is none stops no other, and is logged', async () => {
    await world.sql`update auth.users set email = 'carl at acme' where id = ${carl}`
    await setUp()
    await track('bob@acme.test', done)
    const said: unknown[] = []
    await deliver(world.sql, 'bento', { environment, log: (...line) => { said.push(line) } })
    await world.sql`update auth.users set email = 'carl@acme.test' where id = ${carl}`
    expect(mails()).toEqual([mail('ada@acme.test')])
    expect(said).toEqual([['a mail was not sent: the address is none that Bento takes', {
      sink: 'bento', reaction: 'onboarding-step-done', event_id: expect.any(String), actor_id: carl }]])
  })
})

const row = {
  event: done.event, channel: done.channel, org_id: orgs.acme, actor_id: people.bob, app_id: 'com.acme.app',
  tags: { app_id: 'com.acme.app' },
}

const settings = () => ({ host: bento.url, site_uuid: site.siteUuid, requests_per_minute: 100_000 })
const setUp = (more: object = {}) => createSink(world.sql, 'bento', 'bento', { ...settings(), ...more })

const types = () => bento.taken.map(({ type }) => type)
const mails = () => bento.taken.filter(({ type }) => type.includes(':'))
