import type { Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { publishableKey } from '../src/api.ts'
import { people } from './demo.ts'
import { startBrowser, startPages, type Browser } from './tracker-browser.ts'
import { startProxy, until, type Proxy } from './tracker-proxy.ts'
import { createWorld, type World } from './world.ts'

let world: World
let proxy: Proxy
let pages: Awaited<ReturnType<typeof startPages>>
let browser: Browser

beforeAll(async () => {
  [world, pages, browser] = await Promise.all([createWorld(), startPages(), startBrowser()])
})
afterAll(async () => {
  await browser?.close()
  await pages?.close()
  await world?.close()
})
beforeEach(async () => {
  proxy = await startProxy(world.api.url)
  await world.sql`truncate events`
})
afterEach(async () => {
  const page = await browser.context.newPage()
  for (const other of browser.context.pages()) if (other !== page) await other.close()
  await page.goto(`${pages.url}/other`)
  await page.evaluate('localStorage.clear()')
  await proxy.close()
})

/** Opens the app; with a person, signed in. */
async function open(person?: string, { queue = false, options = {} }: { queue?: boolean, options?: object } = {}): Promise<Page> {
  const page = await browser.context.newPage()
  await page.goto(appUrl(queue, options))
  if (person) await signIn(page, person)
  return page
}
const appUrl = (queue: boolean, options: object = {}) =>
  `${pages.url}/app?${new URLSearchParams({ api: proxy.url, key: publishableKey, ...queue ? { queue: '1' } : {}, options: JSON.stringify(options) })}`
const signIn = async (page: Page, person: string) => {
  expect(await page.evaluate(`supabase.auth.signInWithPassword({ email: '${person}', password: 'password' }).then(({ error }) => error)`)).toBe(null)
}
const stats = (page: Page): Promise<any> => page.evaluate('tracker.stats()')
const events = async () => (await world.sql`select event, actor_id from events order by event_id`)
const names = async () => (await events()).map(({ event }) => event as string)
const numbered = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name} ${i}`)
const eventually = (expected: string[]) => vi.waitFor(async () => expect((await names()).sort()).toEqual([...expected].sort()), { timeout: 30_000, interval: 50 })
const settled = () => new Promise((done) => setTimeout(done, 300))

test('a page that is left at once has sent what it tracked', async () => {
  const page = await open('ada@acme.test', { options: { flushAt: 100 } })
  await page.evaluate(`trackMany('Left', 50); location.href = '${pages.url}/other'`)
  await page.waitForURL('**/other')
  await eventually(numbered('Left', 50))
  expect(new Set((await events()).map(({ actor_id }) => actor_id))).toEqual(new Set([people.ada]))
  expect(proxy.seen).toHaveLength(1)
})

test('a page that is left while a request is under way sends its events once more, and they are there once', async () => {
  // Given an API that is slow to answer
  proxy.always(() => settled().then(() => 'pass' as const))
  const page = await open('ada@acme.test', { options: { flushAt: 10 } })
  await page.evaluate(`trackMany('Under Way', 10)`)
  await until(() => proxy.seen.length === 1)
  await page.evaluate(`trackMany('After', 10); location.href = '${pages.url}/other'`)
  await eventually([...numbered('Under Way', 10), ...numbered('After', 10)])
  await settled()
  expect((await names()).length).toBe(20)
})

test('a page that tracks while it is being left has sent that too', async () => {
  const page = await open('ada@acme.test')
  await page.evaluate(`addEventListener('pagehide', () => tracker.track('Page Left')); addEventListener('beforeunload', () => tracker.track('Leaving')); location.href = '${pages.url}/other'`)
  await eventually(['Leaving', 'Page Left'])
})

test('a tab that is closed has sent what it tracked', async () => {
  const opener = await open('ada@acme.test')
  const [tab] = await Promise.all([browser.context.waitForEvent('page'), opener.evaluate(`window.tab = open(location.href)`)])
  await tab.waitForFunction('window.trackMany')
  await opener.evaluate(`tab.trackMany('Closed', 50); tab.close()`)
  await eventually(numbered('Closed', 50))
})

test('a tab that is closed from outside has sent what it tracked', async () => {
  const page = await open('ada@acme.test')
  await page.evaluate(`trackMany('Closed', 50)`)
  await page.close({ runBeforeUnload: true })
  await eventually(numbered('Closed', 50))
})

test('what is too much for a page that is left goes from the next one, where there is a persistent queue', async () => {
  const page = await open('ada@acme.test', { queue: true })
  await page.evaluate(`trackMany('Large', 200, 1000); location.href = '${pages.url}/other'`)
  await page.waitForURL('**/other')
  // Given that something went, within the 64 KiB that the browser grants
  await until(async () => (await names()).length > 0)

  await page.goto(appUrl(true))
  await eventually(numbered('Large', 200))
  await page.waitForFunction(`Object.keys(localStorage).every((key) => !key.startsWith('actorscope:'))`)
  const counts = await stats(page)
  expect(counts).toMatchObject({ queued: 0, inFlight: 0, dropped: {} })
  expect(counts.sent + counts.duplicates).toBe(counts.adopted)
  expect((await names()).length).toBe(200)
})

test('a page that is only hidden goes on, with everything counted once', async () => {
  const page = await open('ada@acme.test')
  const hide = (state: string) => page.evaluate(`Object.defineProperty(document, 'visibilityState', { value: '${state}', configurable: true }); document.dispatchEvent(new Event('visibilitychange'))`)
  await page.evaluate(`trackMany('Before', 200, 1000)`)
  await hide('hidden')
  await page.evaluate(`trackMany('Hidden', 5)`)
  await hide('visible')
  await hide('hidden')
  await page.evaluate(`tracker.flush()`)
  expect(await stats(page)).toMatchObject({ tracked: 205, queued: 0, inFlight: 0, waiting: 0, dropped: {} })
  const { sent, duplicates } = await stats(page)
  expect(sent + duplicates).toBe(205)
  expect((await names()).sort()).toEqual([...numbered('Before', 200), ...numbered('Hidden', 5)].sort())
})

test('a page that is gone back to goes on where it was', async () => {
  const page = await open('ada@acme.test')
  await page.evaluate(`window.mark = 1; addEventListener('pageshow', (event) => window.restored = event.persisted); trackMany('Before', 50)`)
  await page.evaluate(`location.href = '${pages.url}/other'`)
  await page.waitForURL('**/other')
  await eventually(numbered('Before', 50))
  await page.evaluate('history.back()')
  await page.waitForURL('**/app**', { waitUntil: 'commit' }) // a page that is restored may not load again
  await page.waitForFunction('window.trackMany')
  const isRestored = await page.evaluate('window.mark === 1')
  await page.evaluate(`trackMany('After', 5); tracker.flush()`)
  await eventually([...numbered('Before', 50), ...numbered('After', 5)])
  const { tracked, sent, duplicates } = await stats(page)
  expect([isRestored, tracked, sent + duplicates]).toEqual(isRestored ? [true, 55, 55] : [false, 5, 5])
})

test('a page that crashed loses nothing: the next one sends it', async () => {
  // Given a page whose requests get no answer, some of them after the commit
  proxy.next('reset after')
  proxy.always('reset')
  const page = await open('ada@acme.test', { queue: true, options: { flushAt: 10, retryDelay: 20, maxRetryDelay: 100 } })
  await page.evaluate(`trackMany('Crashed', 60)`)
  await until(() => proxy.seen.length > 2)

  // When it crashes
  const crashed = page.waitForEvent('crash')
  await page.goto('chrome://crash').catch(() => {})
  await crashed
  await page.close()
  proxy.always('pass')

  // Then the next page of the same person sends what is left
  const next = await open(undefined, { queue: true })
  await eventually(numbered('Crashed', 60))
  await next.waitForFunction('tracker.stats().queued + tracker.stats().inFlight === 0')
  const counts = await stats(next)
  expect(counts).toMatchObject({ adopted: 60, dropped: {} })
  expect(counts.sent + counts.duplicates).toBe(60)
})

test('a browser that was closed while the API was away sends when it is opened again', async () => {
  proxy.always('reset')
  const page = await open('ada@acme.test', { queue: true })
  await page.evaluate(`trackMany('Kept', 30)`)
  await browser.restart()
  proxy.always('pass')
  await open(undefined, { queue: true })
  await eventually(numbered('Kept', 30))
})

test('two tabs with one queue lose nothing and double nothing', async () => {
  const tabs = [await open('ada@acme.test', { queue: true, options: { flushAt: 5 } }), await open(undefined, { queue: true, options: { flushAt: 5 } })]
  await Promise.all(tabs.map((tab, i) => tab.evaluate(`trackMany('Tab ${i}', 100)`)))
  const third = await open(undefined, { queue: true })
  await tabs[0]!.evaluate(`location.href = '${pages.url}/other'`)
  await eventually([...numbered('Tab 0', 100), ...numbered('Tab 1', 100)])
  await third.waitForFunction(`Object.keys(localStorage).every((key) => !key.startsWith('actorscope:'))`, undefined, { timeout: 20_000 })
})

test('what one person left in the browser is never sent as another\'s', async () => {
  proxy.always('reset')
  const page = await open('ada@acme.test', { queue: true })
  await page.evaluate(`trackMany('Ada', 10)`)
  const gone = page.waitForEvent('crash')
  await page.goto('chrome://crash').catch(() => {})
  await gone
  await page.close()
  proxy.always('pass')

  // Given that the next who opens the page is signed out and signs in as somebody else
  const blank = await browser.context.newPage()
  await blank.goto(`${pages.url}/other`)
  await blank.evaluate(`for (const key of Object.keys(localStorage)) if (key.startsWith('sb-')) localStorage.removeItem(key)`)
  const next = await open(undefined, { queue: true })
  await next.evaluate(`trackMany('Landed', 1)`)
  await signIn(next, 'eve@evil.test')
  await next.evaluate(`trackMany('Eve', 10); tracker.flush()`)
  expect((await events()).filter(({ event }) => event.startsWith('Ada'))).toEqual([])

  await next.evaluate(`supabase.auth.signOut()`)
  await signIn(next, 'ada@acme.test')
  await eventually([...numbered('Ada', 10), 'Landed 0', ...numbered('Eve', 10)])
  const actors = Object.fromEntries((await events()).map(({ event, actor_id }) => [event.split(' ')[0], actor_id]))
  expect(actors).toEqual({ Ada: people.ada, Landed: people.eve, Eve: people.eve })
})

test('a full storage is told, and the events are sent from memory', async () => {
  const page = await open('ada@acme.test', { queue: true })
  await page.evaluate(`for (let size = 1 << 20; size > 8; size >>= 1) try { for (let i = 0; ; i++) localStorage.setItem('filler ' + size + i, 'x'.repeat(size)) } catch {}`)
  await page.evaluate(`trackMany('Full', 30, 100); tracker.flush()`)
  await eventually(numbered('Full', 30))
  expect(await page.evaluate('errors')).toEqual(['storage_failed'])
})

test('opting out is remembered by the browser', async () => {
  const page = await open('ada@acme.test', { queue: true })
  await page.evaluate(`trackMany('Before', 5); tracker.optOut()`)
  await page.reload()
  await page.evaluate(`trackMany('After', 5); tracker.flush()`)
  expect(await stats(page)).toMatchObject({ adopted: 0, dropped: { opted_out: 5 } })
  await page.evaluate(`tracker.optIn(); trackMany('In', 5); tracker.flush()`)
  await eventually(numbered('In', 5))
})
