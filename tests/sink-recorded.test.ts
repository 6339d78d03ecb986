import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { published } from './cli.ts'
import { people } from './demo.ts'
import { startBento, startLogSnag, startPostHog, startWebhook } from './receivers.ts'
import { createSink } from './sending.ts'
import { startCommand, until, type Process } from './workers.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

// What the origin system's own client sent, on its whole way: through the API into the log, and by a worker, a process
// of its own, into every kind of sink, whose receivers hold it to the vendors' contracts.

const secret = `whsec_${Buffer.from('a secret of twenty-four!').toString('base64')}`
const environment = {
  POSTHOG_API_KEY: 'phc_f8a7c3b1', LOGSNAG_TOKEN: 'lst_4b7d1f0e', ACTORSCOPE_SINK_HOOK_SECRET: secret,
  BENTO_PUBLISHABLE_KEY: 'pub_77ab', BENTO_SECRET_KEY: 'sec_91cd',
}
const site = { siteUuid: 'site-1', publishableKey: 'pub_77ab', secretKey: 'sec_91cd' }

let world: World
let folder: Awaited<ReturnType<typeof temporaryFolder>>
let vendors: Awaited<ReturnType<typeof startVendors>>
let worker: Process | undefined

beforeAll(async () => {
  world = await createWorld()
  folder = await temporaryFolder()
  vendors = await startVendors()
})
afterAll(async () => {
  worker?.kill('SIGKILL')
  await worker?.exited
  await Promise.all([...Object.values(vendors ?? {}).map((vendor) => vendor.close()), folder?.remove(), world?.close()])
})

test('the recorded events of a real client reach every kind of sink', async () => {
  await world.sql`truncate public.events`
  const { posthog, bento, logsnag, hook } = vendors
  const path = join(folder.path, 'events.ndjson')
  const sinks: Record<string, [kind: string, settings: object]> = {
    posthog: ['posthog', { host: posthog.url }],
    bento: ['bento', { host: bento.url, site_uuid: site.siteUuid }],
    logsnag: ['logsnag', { host: logsnag.url, project: 'demo' }],
    hook: ['webhook', { url: `${hook.url}/hooks` }],
    file: ['ndjson', { path }],
    out: ['ndjson', {}],
  }
  for (const [sink, [kind, settings]] of Object.entries(sinks)) await createSink(world.sql, sink, kind, settings)

  const recorded = (await readFile('tests/fixtures/capgo-cli-8.68.1.jsonl', 'utf8')).trim().split('\n')
  const client = world.withKey('as_local_demo_app')
  for (const line of recorded) {
    const { data, error } = await client.rpc('track_event', { v2: JSON.parse(line) })
    expect([error, data.status]).toEqual([null, 'ok'])
  }
  worker = startCommand(['worker'], { ...environment, DATABASE_URL: world.databaseUrl }, { program: published })
  await until(async () => (await read()).every(({ pending }) => pending === 0))
  worker.kill('SIGTERM')
  expect(await worker.exited).toBe(0)

  expect(recorded).toHaveLength(16)
  expect(await read()).toEqual(Object.keys(sinks).toSorted().map((sink) => (
    { sink, delivered: 16, filtered: 0, undelivered: 0, dropped: 0, pending: 0, last_error: null })))
  expect(await world.sql`select * from tracking.delivery_gaps`).toEqual([])
  expect(Object.values(vendors).flatMap(({ breaches }) => breaches)).toEqual([])

  const events = await world.sql`
    select event_id, event, tags, context, actor_id, org_id from public.events order by txid, event_id`
  const ids = events.map(({ event_id }) => event_id)
  const isGroup = ({ event }: { event: string }) => event === '$groupidentify'
  const captured = posthog.taken.filter((event) => !isGroup(event))
  expect(captured.map(({ uuid }) => uuid)).toEqual(ids)
  expect(captured.map(({ event, distinct_id, properties: { $groups } }) => [event, distinct_id, $groups]))
    .toEqual(events.map(({ event, actor_id, org_id }) => [event, actor_id, { organization: org_id }]))
  expect(captured.map(({ properties }) => properties))
    .toEqual(events.map(({ tags, context }) => expect.objectContaining({ ...context, ...tags, $set: tags })))
  expect(posthog.taken.filter(isGroup).map(({ properties: { $group_set } }) => $group_set)).toEqual([{ name: 'Demo' }])
  expect(bento.taken.map(({ details, email }) => [details!.event_id, email]))
    .toEqual(ids.map((id) => [id, 'ada@acme.test']))
  expect(logsnag.taken.map(({ tags, user_id }) => [tags!['event-id'], user_id]))
    .toEqual(ids.map((id) => [id, people.ada]))
  expect(hook.taken.map(({ id }) => id)).toEqual(ids)
  for (const text of [await readFile(path, 'utf8'), worker.output()]) {
    expect(text.trim().split('\n').map((line) => JSON.parse(line).event_id)).toEqual(ids)
  }
  const everythingSaid = worker.told() + worker.output()
  expect(Object.values(environment).filter((one) => everythingSaid.includes(one))).toEqual([])
})

async function read() {
  return world.sql`
    select sink, delivered::int, filtered::int, undelivered::int, dropped::int, pending::int, last_error
    from   tracking.sink_lag
    order  by sink`
}

async function startVendors() {
  return {
    posthog: await startPostHog(environment.POSTHOG_API_KEY),
    bento: await startBento(site),
    logsnag: await startLogSnag(environment.LOGSNAG_TOKEN, 'demo'),
    hook: await startWebhook(secret),
  }
}
