import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { publishableKey } from '../src/api.ts'
import { createTracker, defineCatalog, type Stats, type Tracker } from '../src/tracker.ts'
import { orgs } from './demo.ts'
import { startProxy, type Deed, type Proxy } from './tracker-proxy.ts'
import { createWorld, type World } from './world.ts'

const catalog = defineCatalog({ Plain: { scope: 'actor' }, Grouped: { scope: 'org' } })

let world: World
let proxy: Proxy

beforeAll(async () => {
  world = await createWorld()
  proxy = await startProxy(world.api.url)
})
afterAll(async () => {
  await proxy.close()
  await world.close()
})

type Step = { name: string, act(tracker: Tracker<any>): unknown }

const step = (name: string, act: Step['act']): fc.Arbitrary<Step> => fc.constant({ name, act, toString: () => name })
const steps: fc.Arbitrary<Step>[] = [
  step('track', (tracker) => tracker.track('Plain')),
  step('track a lot', (tracker) => { for (let i = 0; i < 12; i++) tracker.track('Plain') }),
  step('track for the group', (tracker) => tracker.track('Grouped')),
  step('track what is refused', (tracker) => tracker.track('Plain', { org: orgs.evil })),
  step('track what is impossible', (tracker) => tracker.track('Plain', { tags: { n: 1n } })),
  step('track what beforeSend drops', (tracker) => tracker.track('Plain', { description: 'drop' })),
  step('track at once', (tracker) => void tracker.trackNow('Plain').catch(() => {})),
  step('group', (tracker) => tracker.group(orgs.acme)),
  step('no group', (tracker) => tracker.group(null)),
  step('opt out', (tracker) => tracker.optOut()),
  step('opt in', (tracker) => tracker.optIn()),
  step('flush', (tracker) => void tracker.flush()),
  step('flush and give up', (tracker) => tracker.flush(5)),
  step('send what is left', (tracker) => tracker.flushSync(() => undefined)),
  step('wait', () => new Promise((done) => setTimeout(done, 8))),
]
const deeds: Deed[] = ['pass', 'pass', 'pass', 'reset', 'reset after', 'reset after', 'hang', { status: 503 }, { status: 429, headers: { 'retry-after': '0' } },
  { status: 413 }, { status: 404, body: '{"code":"PGRST202"}' }, { status: 200, body: 'oops' }, { status: 401, body: '{}' }]

const sum = (numbers: number[]) => numbers.reduce((total, one) => total + one, 0)
const total = ({ queued, waiting, inFlight, sent, duplicates, kept, dropped }: Stats) =>
  queued + waiting + inFlight + sent + duplicates + kept + sum(Object.values(dropped))

test('the books balance after every step: each event is in exactly one of the counts', async () => {
  await fc.assert(fc.asyncProperty(
    fc.array(fc.oneof(...steps), { minLength: 1, maxLength: 25 }), fc.array(fc.constantFrom(...deeds), { maxLength: 12 }),
    async (script, answers) => {
      const run = randomUUID() // a request that an earlier run gave up may still be on its way
      proxy.next(...answers)
      const tracker = createTracker({ url: proxy.url, publishableKey, apiKey: 'as_local_acme_admin' }, {
        catalog, flushAt: 5, flushInterval: 4, maxQueueSize: 20, maxBatchSize: 4, groupTimeout: 40, requestTimeout: 60, retryDelay: 2, maxRetryDelay: 10, context: { run },
        beforeSend: (event) => event.description === 'drop' ? null : event })
      try {
        for (const { act } of script) {
          await act(tracker)
          const stats = tracker.stats()
          expect(total(stats)).toBe(stats.tracked + stats.adopted)
          expect(stats.queued + stats.waiting).toBeLessThanOrEqual(20)
        }
      } finally {
        const stats = await tracker.shutdown(5_000)
        expect(total(stats)).toBe(stats.tracked)
        expect(stats).toMatchObject({ queued: 0, waiting: 0, inFlight: 0 })
        // What was counted as delivered is there, and nothing twice; what was given up may be there too.
        const [{ count, ids } = { count: 0, ids: 0 }] = await world.sql<{ count: number, ids: number }[]>`
          select count(*)::int as count, count(distinct event_id)::int as ids from events where context ->> 'run' = ${run}`
        expect(count).toBe(ids)
        expect(count).toBeGreaterThanOrEqual(stats.sent + stats.duplicates)
        expect(count).toBeLessThanOrEqual(stats.tracked)
      }
    }), { numRuns: 150, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: false })
})
