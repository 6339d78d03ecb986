// The dashboard as people use it: in Chromium, over the local stack, with half a year of the demo world to look at.
import { readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { createRequire } from 'node:module'
import type { BrowserContextOptions, Page } from 'playwright-core'
import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { count, date, dateAndTime, duration, percent, periodName } from '../dashboard/src/format.ts'
import { startApi, type Api } from '../src/api.ts'
import { demoOf, runFile } from '../src/database.ts'
import { freePort } from '../src/postgres.ts'
import { launchChromium } from './chromium.ts'
import { orgs, people } from './demo.ts'
import { asLogin, createWorld, signToken, type World } from './world.ts'

// What functions speak of that are run in the page.
declare const document: any, location: any, localStorage: any, innerWidth: number, getComputedStyle: any, addEventListener: any

type Person = keyof typeof people
const emails: Record<Person, string> = {
  ada: 'ada@acme.test', bob: 'bob@acme.test', cyd: 'cyd@acme.test', eve: 'eve@evil.test', nik: 'nik@nowhere.test',
}
const sections = ['activity', 'live', 'surfaces', 'funnel', 'retention', 'active', 'people', 'builds']

let world: World
let api: Api
let chromium: Awaited<ReturnType<typeof launchChromium>>
let axe: string
/** The login of PostgREST. */
let gate: Sql

beforeAll(async () => {
  [world, chromium] = await Promise.all([createWorld(), launchChromium()])
  axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
  gate = world.connectAs('authenticator')
  await runFile(world.sql, 'src/demo-past.sql')
  await world.sql`select tracking.roll_up(100000)`
  api = await serve(await freePort())
})
afterAll(async () => {
  await chromium?.close()
  await api?.stop()
  await world?.close()
})

const serve = async (port: number) =>
  startApi({ port, databaseUrl: asLogin(world.databaseUrl, 'lite'), demo: await demoOf(world.sql) })

/** What pages complained of: nothing, where nothing is wrong. */
const complaints: string[] = []
let opened: Page[] = []
afterEach(async () => {
  for (const page of opened.splice(0)) await page.context().close()
  expect(complaints.splice(0)).toEqual([])
})

async function open(options: BrowserContextOptions = {}, url = api.url): Promise<Page> {
  const context = await chromium.browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(15_000)
  page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()) })
  page.on('pageerror', (error) => complaints.push(String(error)))
  opened.push(page)
  await page.goto(`${url}/`)
  return page
}

async function openAs(person: Person, options?: BrowserContextOptions, url?: string): Promise<Page> {
  const page = await open(options, url)
  await page.getByRole('button', { name: emails[person] }).click()
  await settled(page)
  return page
}

/** When the frame is there, and nothing in it is awaited any more. */
async function settled(page: Page): Promise<void> {
  await page.locator('main h1').waitFor()
  await page.waitForFunction(() => document.querySelector('main#main') && !document.querySelector('.loading, [aria-busy="true"]'))
}

/** Does what leads to another address, and waits until that is what is shown. */
async function follow(page: Page, lead: () => Promise<unknown>): Promise<void> {
  const followed = page.evaluate(() => new Promise<void>((done) => addEventListener('hashchange', () => done(), { once: true })))
  await Promise.all([followed, lead()])
  await settled(page)
}

async function visit(page: Page, address: string): Promise<void> {
  const hash = `#/${address}`
  if (await page.evaluate(() => location.hash) === hash) await settled(page)
  else await follow(page, () => page.evaluate((next) => { location.hash = next }, hash))
}

const texts = (page: Page, selector: string): Promise<string[]> => page.locator(selector).allTextContents()

/** The cells of a table, by its caption; of one that another view hides, after choosing it. */
async function tableOf(page: Page, caption: string): Promise<string[][]> {
  const table = page.locator('table', { has: page.locator('caption', { hasText: new RegExp(`^${caption}$`) }) }).first()
  await table.waitFor()
  return table.evaluate((element: any) => [...element.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent)))
}

async function showTable(page: Page, figure: string): Promise<void> {
  await page.getByRole('group', { name: `Show ${figure} as` }).getByRole('button', { name: 'Table' }).click()
}

/** What SQL answers to a person, who comes in as PostgREST would have it. */
async function askedBy(person: Person, query: string): Promise<any[]> {
  return gate.begin(async (tx) => {
    await tx`select set_config('role', 'authenticated', true), set_config('request.jwt.claims', ${JSON.stringify({ role: 'authenticated', sub: people[person] })}, true)`
    const [row] = await tx.unsafe(`select coalesce(jsonb_agg(to_jsonb(r)), '[]') as rows from (${query}) as r`)
    return row?.rows
  })
}

const day = 86_400_000
const today = () => Math.floor(Date.now() / day) * day
const ninetyDays = () => new Date(today() - 89 * day).toISOString()
const nameOf = (id: string) => Object.entries(people).find(([, known]) => known === id)?.[0] ?? `${id.slice(0, 8)}…${id.slice(-4)}`


describe('the site', () => {
  const get = (path: string, init?: RequestInit) => fetch(`${api.url}${path}`, init)

  test('is static files that may load nothing from elsewhere, each by its type; those named by their content are kept', async () => {
    const page = await get('/')
    const html = await page.text()
    expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self'; .*connect-src 'self'/)
    expect(page.headers.get('cache-control')).toBe('no-cache')
    for (const [, path = '', type] of html.matchAll(/(?:src|href)="\.(\/assets\/[^"]+\.(js|css))"/g)) {
      const file = await get(path)
      expect([file.status, file.headers.get('content-type'), file.headers.get('cache-control')]).toEqual(
        [200, type === 'js' ? 'text/javascript; charset=utf-8' : 'text/css; charset=utf-8', 'public, max-age=31536000, immutable'])
    }
  })

  test('learns its project from config.json', async () => {
    expect(await (await get('/config.json')).json()).toMatchObject({
      url: '/', publishableKey: 'sb_publishable_actorscope_local', people: { [people.ada]: 'ada@acme.test' },
      demo: { password: 'password', people: [{ email: 'ada@acme.test' }, {}, {}, {}, {}] } })
  })

  test.each([
    '/../package.json', '/..%2fpackage.json', '/assets/../../cli.js', '/assets/%2e%2e/%2e%2e/cli.js', '/%2fetc/passwd', '//etc/passwd', '/assets', '/assets/', '/cli.js', '/index.html%00',
  ])('serves nothing but what is in its folder: %s', async (path) => {
    // Node's own client sends the path as it is.
    const status = await new Promise((done, fail) => request(`${api.url}`, { path }, (answer) => done(answer.resume().statusCode)).on('error', fail).end())
    expect(status).toBe(404)
  })

  test('is only to be read', async () => {
    expect((await get('/', { method: 'POST' })).status).toBe(404)
    const head = await get('/', { method: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
  })
})


describe('signing in', () => {
  test('with a password; a wrong one is said to be wrong', async () => {
    const page = await open()
    await page.getByLabel('Email').fill('ada@acme.test')
    await page.getByLabel('Password').fill('wrong')
    await page.getByRole('button', { name: 'Sign in' }).click()
    expect(await page.getByRole('alert').filter({ hasText: /\S/ }).textContent()).toBe('The email address and the password do not go together.')
    await page.getByLabel('Password').fill('password')
    await page.keyboard.press('Enter')
    await settled(page)
    expect(await page.locator('h1').textContent()).toBe('Activity')
    complaints.splice(0) // Chromium prints the 400
  })

  test('with a link or a provider, where the configuration says so', async () => {
    const page = await open()
    await page.route('**/config.json', (route) => route.fulfill({ json: { url: '/', publishableKey: 'sb_publishable_actorscope_local', signIn: ['link', 'github'] } }))
    let asked: Record<string, any> = {}
    await page.route('**/auth/v1/otp**', (route) => { asked = route.request().postDataJSON(); return route.fulfill({ json: {} }) })
    // The provider sends people back with a code, which is worth a session.
    let exchanged = ''
    await page.route('**/auth/v1/authorize**', (route) => {
      const { searchParams } = new URL(route.request().url())
      asked = Object.fromEntries(searchParams)
      return route.fulfill({ status: 302, headers: { location: `${searchParams.get('redirect_to')}?code=from-github` } })
    })
    await page.route('**/auth/v1/token?grant_type=pkce', async (route) => {
      exchanged = route.request().postDataJSON().auth_code
      const { data } = await (await world.signIn(emails.bob)).auth.getSession()
      return route.fulfill({ json: data.session })
    })
    await page.reload()
    await page.getByLabel('Email').fill('bob@acme.test')
    expect(await page.getByLabel('Password').count()).toBe(0)
    await page.getByRole('button', { name: 'Mail me a link' }).click()
    await page.getByText('a link is on its way').waitFor()
    expect(asked).toMatchObject({ email: 'bob@acme.test', create_user: false })

    await page.getByRole('button', { name: 'Go on with Github' }).click()
    await settled(page)
    expect(asked).toMatchObject({ provider: 'github', redirect_to: `${api.url}/` })
    expect(exchanged).toBe('from-github')
    expect(await page.getByText('bob@acme.test').count()).toBeGreaterThan(0)
  })

  test('lasts over a reload, leads back to where one was, and ends by signing out', async () => {
    const page = await openAs('bob')
    await visit(page, `builds?org=${orgs.acme}`)
    await page.reload()
    await settled(page)
    expect(await page.locator('h1').textContent()).toBe('Builds')
    expect(await page.locator('.side').getByLabel('Organization').inputValue()).toBe(orgs.acme)
    await page.getByText('bob@acme.test').first().click()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
    expect(await page.locator('.notice').count()).toBe(0)
    await page.reload()
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
  })

  test('a session that is over is said to be, and goes on where it was', async () => {
    const page = await openAs('bob')
    await visit(page, 'surfaces')
    await page.evaluate(() => {
      const [key = ''] = Object.keys(localStorage).filter((name) => name.endsWith('-auth-token'))
      const session = JSON.parse(localStorage.getItem(key) ?? '')
      localStorage.setItem(key, JSON.stringify({ ...session, expires_at: 1, refresh_token: 'gone' }))
    })
    await page.reload()
    await page.getByRole('status').filter({ hasText: 'Your session has ended' }).waitFor()
    await page.getByRole('button', { name: emails.bob }).click()
    await settled(page)
    expect(await page.locator('h1').textContent()).toBe('Surfaces')
    complaints.splice(0)
  })

  test('a token that the API takes for expired is renewed, or the session is over', async () => {
    const expired = signToken({ sub: people.bob, role: 'authenticated', email: emails.bob, exp: 1 })
    const page = await openAs('bob')
    const change = (refresh?: string) => page.evaluate(([token, other]) => {
      const [key = ''] = Object.keys(localStorage).filter((name) => name.endsWith('-auth-token'))
      const session = JSON.parse(localStorage.getItem(key) ?? '')
      localStorage.setItem(key, JSON.stringify({ ...session, access_token: token, refresh_token: other ?? session.refresh_token }))
    }, [expired, refresh] as const)
    await change()
    await page.reload()
    await settled(page)
    expect((await texts(page, 'main h2'))[0]).toBe('Events a day')
    await change('gone')
    await page.reload()
    await page.getByRole('status').filter({ hasText: 'Your session has ended' }).waitFor()
    complaints.splice(0)
  })
})


describe('every section shows what SQL answers', () => {
  test.each([
    ['ada', ['All that I may see', 'Acme', 'Demo']],
    ['bob', ['All that I may see', 'Acme']],
    ['cyd', ['All that I may see', 'Owner of Acme App']],
    ['eve', ['All that I may see', 'Evil']],
    ['nik', ['All that I may see']],
  ] as [Person, string[]][])('to %s', async (person, choices) => {
    const page = await openAs(person)
    expect(await texts(page, '.side > .field option')).toEqual(choices)
    await expectActivity(page, person)
    await expectActive(page, person)
    await expectSurfaces(page, person)
    await expectRetention(page, person)
    await expectFunnel(page, person)
    await expectPeople(page, person)
    await expectBuilds(page, person)
    await expectLive(page, person)
  })

  test('of the organization that is chosen, and of no other', async () => {
    const page = await openAs('ada')
    await page.locator('.side').getByLabel('Organization').selectOption('Demo')
    await settled(page)
    await expectActivity(page, 'ada', orgs.demo)
    await expectPeople(page, 'ada', orgs.demo)
    await expectBuilds(page, 'ada', orgs.demo)
    await visit(page, `live?org=${orgs.demo}`)
    expect(await page.locator('.feed').textContent()).not.toContain('Acme')
  })

  test('within the range that is chosen', async () => {
    const page = await openAs('ada')
    const [from, to] = [new Date(today() - 40 * day), new Date(today() - 34 * day)].map((time) => time.toISOString().slice(0, 10))
    await page.getByLabel('Range').selectOption('custom')
    await page.getByLabel('From', { exact: true }).fill(from!)
    await page.getByLabel('To', { exact: true }).fill(to!)
    await settled(page)
    await showTable(page, 'Events a day')
    const rows = await askedBy('ada', `select * from analytics.activity(since => '${from}', until => date '${to}' + 1)`)
    expect(rows).toHaveLength(7)
    expect(await tableOf(page, 'Activity a day')).toEqual(rows.reverse().map((row) => [periodName(row.period, 'day'), count(row.events), count(row.actors), count(row.orgs)]))
  })

  test.each([
    ['ada', 'org_id in (select id from orgs where name in (\'Acme\', \'Demo\'))'], ['bob', `org_id = '${orgs.acme}'`], ['cyd', 'app_id = \'com.acme.app\''],
    ['eve', `org_id = '${orgs.evil}'`], ['nik', `org_id is null and actor_id = '${people.nik}'`],
  ] as [Person, string][])('%s sees their own and nothing else', async (person, condition) => {
    const page = await openAs(person)
    await visit(page, 'activity?range=all')
    const rows = await tableOf(page, 'Kinds of events')
    const [{ total } = { total: 0 }] = await world.sql.unsafe(`select count(*)::int as total from events where ${condition}`)
    expect(total).toBeGreaterThan(20)
    expect(rows.reduce((sum, [, events = '']) => sum + Number(events.replace(',', '')), 0)).toBe(total)
  })
})

test('an analyst, whom a token gives the role, sees what everybody did', async () => {
  // Roles are the whole server's, and other tests have analysts of their own.
  await world.sql`create role analyst_of_dashboard in role analyst`
  try {
    await world.sql`grant analyst_of_dashboard to authenticator`
    const exp = Math.floor(Date.now() / 1000) + 3600
    const user = { id: people.nik, email: emails.nik, aud: 'authenticated' }
    const session = {
      access_token: signToken({ sub: people.nik, role: 'analyst_of_dashboard', email: emails.nik, exp }),
      refresh_token: 'none', token_type: 'bearer', expires_in: 3600, expires_at: exp, user }
    const page = await open()
    await page.evaluate((stored) => { localStorage.setItem('sb-127-auth-token', stored) }, JSON.stringify(session))
    await page.reload()
    await settled(page)
    expect(await texts(page, '.side > .field option')).toEqual(['All that I may see', 'Acme', 'Demo', 'Evil'])
    const [{ people: all } = { people: 0 }] = await world.sql`
      select count(distinct actor_id)::int as people from events where occurred_at >= ${ninetyDays()} and channel <> 'default'`
    await visit(page, 'surfaces')
    expect(await page.locator('.tile.strong dd').textContent()).toContain(`of ${count(all)} people`)
    await visit(page, 'live')
    await page.locator('.feed li').first().waitFor()
    expect(await page.locator('.pulse').textContent()).toBe('Live')
    expect(await page.getByRole('alert').count()).toBe(0)
  } finally {
    await world.sql`drop role analyst_of_dashboard`
  }
})

test('while another answer is awaited, what is shown is at once said to be the one before', async () => {
  const page = await openAs('ada')
  const before = await page.locator('.answer .summary').first().textContent()
  const shown = await page.evaluate(async () => {
    location.hash = '#/activity?range=30d'
    await new Promise((done) => addEventListener('hashchange', done, { once: true }))
    return [...document.querySelectorAll('.answer')].map((answer) => [answer.ariaBusy, answer.querySelector('.summary')?.textContent])
  })
  expect(shown[0]).toEqual(['true', before])
  expect(shown.map(([isBusy]) => isBusy)).not.toContain('false')
})

const orgArgument = (org?: string) => (org ? `, org => '${org}'` : '')

async function expectActivity(page: Page, person: Person, org?: string): Promise<void> {
  await visit(page, org ? `activity?org=${org}` : 'activity')
  await showTable(page, 'Events a day')
  const rows = await askedBy(person, `select * from analytics.activity(since => '${ninetyDays()}'${orgArgument(org)})`)
  expect(rows.length).toBeGreaterThan(60)
  expect(await tableOf(page, 'Activity a day')).toEqual(rows.reverse().map((row) => [periodName(row.period, 'day'), count(row.events), count(row.actors), count(row.orgs)]))
  const kinds = await askedBy(person, `select * from analytics.kinds(since => '${ninetyDays()}'${orgArgument(org)})`)
  expect(kinds.length).toBeGreaterThan(1)
  const surfaces: Record<string, string> = { dashboard: 'Dashboard', cli: 'CLI', builder: 'Builder' }
  expect(await tableOf(page, 'Kinds of events')).toEqual(kinds.map((row) => [
    row.event, count(row.events), count(row.actors), count(row.orgs), row.channel, surfaces[row.surface] ?? 'none', dateAndTime(row.last_seen)]))
}

async function expectActive(page: Page, person: Person): Promise<void> {
  await visit(page, 'active')
  await showTable(page, 'Active people a week')
  const rows = await askedBy(person, `select * from analytics.active(period => 'week', since => '${ninetyDays()}')`)
  expect(await tableOf(page, 'Active a week')).toEqual(rows.reverse().map((row) => [
    periodName(row.period, 'week'), ...[row.active, row.new, row.returning, row.resurrected].map(count)]))
}

async function expectSurfaces(page: Page, person: Person): Promise<void> {
  await visit(page, 'surfaces')
  const rows = await askedBy(person, `select * from analytics.surfaces(since => '${ninetyDays()}')`)
  const has = (row: { surfaces: string[] }, surface: string) => (row.surfaces.includes(surface) ? 'yes' : 'no')
  const expected = rows.map((row) => [
    has(row, 'dashboard'), has(row, 'cli'), has(row, 'builder'), ...[row.actors, row.actors_at_least, row.orgs, row.orgs_at_least].map(count)])
  const shown = await tableOf(page, 'People and organizations on each combination of surfaces')
  expect(shown.map((row) => row.join()).sort()).toEqual(expected.map((row) => row.join()).sort())
  const all = rows.find((row) => row.surfaces.length === 3)
  expect(await page.locator('.tile.strong dd').textContent()).toMatch(new RegExp(`^${count(all.actors)} of `))
}

async function expectRetention(page: Page, person: Person): Promise<void> {
  await visit(page, 'retention')
  const [{ event }] = await askedBy(person, 'select * from analytics.kinds() limit 1')
  expect(await page.getByLabel('First did').inputValue()).toBe(event)
  const rows = await askedBy(person, `
    select * from analytics.retention('${event}') where cohort >= date_trunc('week', timestamptz '${ninetyDays()}' at time zone 'UTC') order by cohort, period`)
  if (rows.length === 0) return expect(await page.locator('.state-title').textContent()).toBe('Nobody to follow')
  const cohorts = [...new Set(rows.map((row) => row.cohort))].map((cohort) => rows.filter((row) => row.cohort === cohort))
  const shown = await tableOf(page, 'Share of each cohort that was there again, by weeks after the first time')
  expect(shown.map((row) => row.filter((cell) => cell !== 'not yet'))).toEqual(
    cohorts.map((cells) => [date(cells[0].cohort), count(cells[0].size), ...cells.map((cell) => percent(Math.round(cell.share * 100) / 100))]))
}

async function expectFunnel(page: Page, person: Person): Promise<void> {
  await visit(page, 'funnel')
  const steps = await page.locator('.steps input').evaluateAll((inputs) => inputs.map((input: any) => input.value))
  const rows = await askedBy(person, `
    select * from analytics.funnel(array[${steps.map((step) => `'${step}'`)}], '14 days', since => '${ninetyDays()}')`)
  if (!rows[0]?.subjects) return expect(await page.locator('.state-title').textContent()).toBe('Nobody began')
  await showTable(page, 'From the first step to the last')
  expect(await tableOf(page, 'Steps of the funnel')).toEqual(rows.map((row) => [
    `${row.step}. ${row.event}`, count(row.subjects), percent(row.conversion ?? 0), row.step === 1 ? '' : percent(row.step_conversion ?? 0),
    row.median_seconds === null ? '' : duration(row.median_seconds)]))
}

async function expectPeople(page: Page, person: Person, org?: string): Promise<void> {
  await visit(page, org ? `people?org=${org}` : 'people')
  const rows = await askedBy(person, `
    select actor_id, count(*) as events, count(distinct (occurred_at at time zone 'UTC')::date) as days, min(occurred_at) as first_seen
    from   public.events
    where  actor_id is not null${org ? ` and org_id = '${org}'` : ''}
    group  by actor_id
    order  by max(occurred_at) desc
    limit  50`)
  const shown = await tableOf(page, 'People')
  expect(shown.map(([name, , events, days, first]) => [name, events, days, first])).toEqual(
    rows.map((row) => [nameOf(row.actor_id), count(row.events), count(row.days), date(row.first_seen)]))
}

async function expectBuilds(page: Page, person: Person, org?: string): Promise<void> {
  await visit(page, org ? `builds?org=${org}` : 'builds')
  const rows = await askedBy(person, `select * from analytics.build_health('week', since => '${ninetyDays()}'${orgArgument(org)})`)
  if (rows.length === 0) return expect(await page.locator('.state-title').textContent()).toBe('No builds here yet')
  await showTable(page, 'Builds a week')
  const seconds = (value: number | null) => (value === null ? '–' : duration(value))
  expect(await tableOf(page, 'Builds a week')).toEqual(rows.reverse().map((row) => [
    periodName(row.period, 'week'), count(row.builds), row.success_rate === null ? '–' : percent(row.success_rate),
    seconds(row.p50_run_seconds), seconds(row.p95_run_seconds), seconds(row.p50_queue_seconds), seconds(row.p95_queue_seconds),
    seconds(row.median_seconds_to_green), row.flakiness === null ? '–' : percent(row.flakiness)]))
  const latest = await askedBy(person, `
    select id from build_requests where created_at >= '${ninetyDays()}'${org ? ` and owner_org = '${org}'` : ''} order by created_at desc limit 25`)
  expect((await tableOf(page, 'Latest builds')).map(([id]) => id)).toEqual(latest.map(({ id }) => `${id.slice(0, 8)}…${id.slice(-4)}`))
}

async function expectLive(page: Page, person: Person): Promise<void> {
  await visit(page, 'live')
  const rows = await askedBy(person, 'select occurred_at, event from events order by occurred_at desc limit 50')
  expect(await texts(page, '.feed strong')).toEqual(rows.map(({ event }) => event))
}


describe('the feed', () => {
  test('shows what is committed within seconds, to whom may see it; waits while it is paused; and can be narrowed down', async () => {
    const [ada, eve] = [await openAs('ada'), await openAs('eve')]
    await Promise.all([visit(ada, 'live'), visit(eve, 'live')])
    const tracker = await world.signIn(emails.bob)
    const track = (event: string) => tracker.rpc('track_event', { v2: { event, tracking_version: 2, org_id: orgs.acme, tags: { app_id: 'com.acme.app', plan: 'solo' } } }).throwOnError()
    await track('Plan Chosen')
    const first = ada.locator('.feed li').first()
    await ada.getByText('Plan Chosen', { exact: true }).waitFor()
    expect(await first.textContent()).toMatch(/Plan Chosen default.*bob for Acme, Acme App.*plansolo/s)
    expect(await ada.getByRole('status').first().textContent()).toBe('Live, 1 new event')

    await ada.getByRole('button', { name: 'Pause' }).click()
    await track('Plan Kept')
    await ada.waitForTimeout(2500)
    expect(await ada.getByText('Plan Kept', { exact: true }).count()).toBe(0)
    await ada.getByRole('button', { name: 'Go on' }).click()
    await ada.getByText('Plan Kept', { exact: true }).waitFor()

    await ada.getByLabel('Only events with').fill('SOLO')
    expect(await texts(ada, '.feed strong')).toEqual(['Plan Kept', 'Plan Chosen'])
    await ada.getByLabel('Only events with').fill('no such thing')
    expect(await ada.locator('.state-title').textContent()).toBe('None of these')
    expect(await eve.getByText(/Plan (Chosen|Kept)/).count()).toBe(0)
    await world.sql`delete from events where event like 'Plan %'`
    await world.sql`select tracking.recount_activity()`
  })
})


describe('one of many', () => {
  test('a person: from the list to all that they did, by day, with the way back', async () => {
    const page = await openAs('bob')
    await visit(page, 'people')
    await follow(page, () => page.getByRole('link', { name: 'cyd', exact: true }).click())
    expect(await page.locator('h1').textContent()).toBe('Person: cyd')
    const rows = await askedBy('bob', `select event from events where actor_id = '${people.cyd}' and occurred_at >= '${ninetyDays()}' order by occurred_at desc limit 50`)
    expect(await texts(page, '.moment strong')).toEqual(rows.map(({ event }) => event))
    await follow(page, () => page.goBack())
    expect(await page.locator('h1').textContent()).toBe('People')
  })

  test('a build: from the list to its steps', async () => {
    const page = await openAs('ada')
    await visit(page, 'builds')
    await follow(page, () => page.getByRole('group', { name: 'Latest builds', exact: true }).getByRole('link').first().click())
    const id = page.url().split('/').at(-1)!.split('?')[0]
    const [build] = await askedBy('ada', `select * from analytics.builds where build_id = '${id}'`)
    expect(await page.locator('.summary').textContent()).toBe(
      `Waited for ${duration(build.queue_seconds)}, then ran for ${duration(build.run_seconds)}; ended as ${build.status.replace('_', ' ')}.`)
    expect((await texts(page, '.moment strong')).slice(0, 2)).toEqual(['Build Requested', 'Build Started'])
    expect(await page.locator('.moment').count()).toBe(3)
  })

  test('of others, there is nothing to see', async () => {
    const [build] = await world.sql`select id from build_requests where owner_org = ${orgs.evil} limit 1`
    const page = await openAs('bob')
    await visit(page, `people/${people.eve}`)
    expect(await page.locator('.state-title').textContent()).toBe('Nobody that you may see')
    await visit(page, `builds/${build?.id}`)
    expect(await page.locator('.state-title').textContent()).toBe('No build that you may see')
    await visit(page, 'people/not-an-id')
    expect(await page.getByRole('alert').textContent()).toContain('invalid input syntax for type uuid')
    complaints.splice(0) // Chromium prints the 400
  })
})


describe('by keyboard alone', () => {
  test('a funnel is built: steps named, added, moved and removed', async () => {
    const page = await openAs('ada')
    await visit(page, 'funnel?steps=%0A')
    const { keyboard } = page
    const isAt = () => page.evaluate(() => {
      const { activeElement: at } = document
      return at?.labels?.[0]?.querySelector('span')?.textContent ?? at?.ariaLabel ?? at?.textContent?.trim()
    })
    const goTo = async (name: string) => {
      for (let presses = 0; await isAt() !== name; presses++) {
        if (presses > 60) throw new Error(`Tab does not come to ${name}.`)
        await keyboard.press('Tab')
      }
    }
    const steps = () => page.locator('.steps input').evaluateAll((inputs) => inputs.map((input: any) => input.value))
    expect(await page.locator('.state-title').textContent()).toBe('Name the steps')

    await goTo('Skip to content')
    await keyboard.press('Enter')
    await goTo('Step 1')
    await keyboard.type('Build Succeeded')
    await goTo('Step 2')
    await keyboard.type('Build Requested')
    await goTo('Add a step')
    await keyboard.press('Enter')
    await expect.poll(isAt).toBe('Step 3')
    await keyboard.type('Report Exported')
    await keyboard.press('Enter')
    await page.getByText('went on').first().waitFor()

    // The first goes down, by keys in the field; the last goes, by its button.
    await keyboard.press('Shift+Tab')
    while (await isAt() !== 'Step 1') await keyboard.press('Shift+Tab')
    await keyboard.press('Alt+ArrowDown')
    await expect.poll(steps).toEqual(['Build Requested', 'Build Succeeded', 'Report Exported'])
    await expect.poll(isAt).toBe('Step 2')
    expect(await page.locator('p[role="status"]').textContent()).toBe('Build Succeeded is step 2 of 3 now.')
    await goTo('Remove step 3')
    await keyboard.press('Space')
    await expect.poll(steps).toEqual(['Build Requested', 'Build Succeeded'])
    await expect.poll(isAt).toBe('Step 2')
    expect(await page.locator('p[role="status"]').textContent()).toBe('Step 3 was removed. 2 steps are left.')

    await settled(page)
    const rows = await askedBy('ada', `select * from analytics.funnel('{Build Requested,Build Succeeded}', '14 days', since => '${ninetyDays()}')`)
    expect(await texts(page, '.funnel-count strong')).toEqual(rows.map(({ subjects }) => count(subjects)))
  })

  test('a broken down one shows a funnel for each value', async () => {
    const page = await openAs('ada')
    await visit(page, `funnel?steps=${encodeURIComponent('Build Requested\nBuild Succeeded')}&within=1 hours`)
    await page.getByLabel('Broken down by tag').fill('platform')
    await page.keyboard.press('Enter')
    await page.locator('.funnels h3').first().waitFor()
    await settled(page)
    const rows = await askedBy('ada', `select * from analytics.funnel('{Build Requested,Build Succeeded}', '1 hour', breakdown => 'platform', since => '${ninetyDays()}')`)
    expect(new Set(await texts(page, '.funnels h3'))).toEqual(new Set(['ios', 'android']))
    expect(await texts(page, '.funnel-count strong')).toEqual(rows.map(({ subjects }) => count(subjects)))
  })

  test('whoever goes to a section begins at its title', async () => {
    const page = await openAs('ada')
    await page.getByRole('link', { name: 'Surfaces' }).focus()
    await follow(page, () => page.keyboard.press('Enter'))
    await expect.poll(() => page.evaluate(() => document.activeElement?.textContent)).toBe('Surfaces')
    expect(await page.title()).toBe('Surfaces · Actorscope')
  })
})


describe('everything is as axe-core wants it', () => {
  const faultsOf = async (page: Page) => {
    await page.evaluate(axe)
    const { violations } = await page.evaluate('axe.run({ resultTypes: ["violations"] })') as { violations: { id: string, nodes: { html: string }[] }[] }
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).slice(0, 3).join(' ')}`)
  }

  test.each(['light', 'dark'] as const)('in %s', async (colorScheme) => {
    const page = await open({ colorScheme })
    expect(await faultsOf(page)).toEqual([])
    await page.getByRole('button', { name: emails.ada }).click()
    await settled(page)
    const [build] = await askedBy('ada', 'select build_id from analytics.builds where result = \'failure\' order by finished_at desc limit 1')
    for (const address of [...sections, `people/${people.ada}`, `builds/${build.build_id}`, 'funnel?steps=%0A', 'nowhere']) {
      await visit(page, address)
      expect(await faultsOf(page), address).toEqual([])
    }
    await visit(page, 'builds')
    await showTable(page, 'Builds a week')
    await page.getByRole('group', { name: 'Show How long builds run as' }).getByRole('button', { name: 'SQL' }).click()
    await page.getByText('ada@acme.test').first().click()
    expect(await faultsOf(page), 'tables, SQL and the menu').toEqual([])
  })
})

test('light and dark follow the system, until one is chosen', async () => {
  const page = await openAs('ada', { colorScheme: 'dark' })
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  const dark = await ground()
  await page.getByText('ada@acme.test').first().click()
  await page.getByLabel('Colors').selectOption('Light')
  const light = await ground()
  expect(light).not.toBe(dark)
  await page.reload()
  await settled(page)
  expect(await ground()).toBe(light)
})

test('on a phone nothing is wider than the page', async () => {
  const page = await open({ viewport: { width: 390, height: 844 }, hasTouch: true })
  const excess = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
  expect(await excess()).toBe(0)
  await page.getByRole('button', { name: emails.ada }).click()
  await settled(page)
  for (const address of [...sections, `people/${people.ada}`, 'activity?range=custom', 'nowhere']) {
    await visit(page, address)
    expect(await excess(), address).toBe(0)
    expect(await page.locator('nav [aria-current]').evaluateAll(([link]) => !link || (link.getBoundingClientRect().left >= 0 && link.getBoundingClientRect().right <= innerWidth)), address).toBe(true)
  }
})


describe('what cannot be shown says why', () => {
  test('an organization without events: how to send one', async () => {
    const [org] = await world.sql`insert into orgs (name) values ('Void') returning id`
    await world.sql`insert into tracking.role_bindings (principal_id, role, org_id) values (${people.ada}, 'viewer', ${org!.id})`
    const page = await openAs('ada')
    await page.locator('.side').getByLabel('Organization').selectOption('Void')
    for (const section of sections) {
      await visit(page, `${section}?org=${org!.id}`)
      expect(await texts(page, '.state-title'), section).toEqual([section === 'builds' ? 'No builds here yet' : 'No events here yet'])
    }
    await visit(page, `activity?org=${org!.id}`)
    expect(await page.locator('.state code').textContent()).toBe(`ACTORSCOPE_URL=${api.url} ACTORSCOPE_EMAIL=ada@acme.test npx actorscope track Hello --org ${org!.id}`)
    await world.sql`delete from orgs where id = ${org!.id}`
  })

  test('a refusal: in the database\'s words', async () => {
    const page = await openAs('ada')
    await visit(page, 'activity?range=custom&since=2026-02-02&until=2026-01-01')
    const alerts = await texts(page, '[role="alert"]')
    expect(alerts[0]).toContain('invalid_rangesince is not before until.until is the first moment that does not count any more.')
    complaints.splice(0) // Chromium prints the 400
  })

  test('an API that is down: what to do, and again when it is back', async () => {
    const port = await freePort()
    let other = await serve(port)
    const page = await openAs('ada', {}, other.url)
    await other.stop()
    await page.evaluate(() => { location.hash = '#/surfaces' })
    const alert = page.getByRole('alert')
    await alert.waitFor()
    expect(await alert.textContent()).toContain('The API does not answer')
    expect(await alert.textContent()).toContain('Check that you are online and that the project runs; then try again.')
    await visit(page, 'live')
    await page.getByText('Not connected').waitFor()
    other = await serve(port)
    for (const button of await page.getByRole('button', { name: 'Try again' }).all()) await button.click()
    await page.locator('.feed').waitFor()
    await page.evaluate(() => { location.hash = '#/surfaces' })
    await page.locator('.tile').first().waitFor()
    await page.close()
    await other.stop()
    complaints.splice(0)
  })

  test('no configuration: where to put one', async () => {
    const context = await chromium.browser.newContext()
    const page = await context.newPage()
    opened.push(page)
    await page.route('**/config.json', (route) => route.fulfill({ status: 404 }))
    await page.goto(`${api.url}/`)
    await page.getByText('Put a file').waitFor()
    await page.unrouteAll()
    await page.route('**/config.json', (route) => route.abort())
    await page.reload()
    expect(await page.getByRole('alert').textContent()).toContain('The host of this page does not answer.')
    await page.unrouteAll()
    await page.getByRole('button', { name: 'Try again' }).click()
    await page.getByRole('button', { name: 'Sign in' }).waitFor()
  })
})
