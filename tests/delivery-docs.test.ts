import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { asTable, examples, readBlocks, withEllipses } from './examples.ts'
import { startBento, startLogSnag, startPostHog, startWebhook, type Receiver } from './receivers.ts'
import { deliver } from './sending.ts'
import { createWorld, type World } from './world.ts'

const page = 'docs/delivery.md'
const blocks = await readBlocks(page)
const secret = `whsec_${Buffer.from('a secret of twenty-four!').toString('base64')}`
const environment = {
  POSTHOG_API_KEY: 'phc_…', LOGSNAG_TOKEN: 'lst_1', BENTO_PUBLISHABLE_KEY: 'pub_1', BENTO_SECRET_KEY: 'sec_1',
  ACTORSCOPE_SINK_HOOK_SECRET: secret,
}
const site = { siteUuid: '2103f23614d9877a6b4ee73d28a5c61d', publishableKey: 'pub_1', secretKey: 'sec_1' }
let world: World
let receivers: Record<string, Receiver<any>>

beforeAll(async () => {
  world = await createWorld()
  receivers = {
    posthog: await startPostHog('phc_…'), logsnag: await startLogSnag('lst_1', 'my-saas'),
    bento: await startBento({ ...site, requestsPerMinute: 1000 }), hook: await startWebhook(secret),
  }
})
afterAll(() => Promise.all([world.close(), ...Object.values(receivers).map((receiver) => receiver.close())]))

describe('the page\'s queries answer what it says', () => {
  for (const { line, call, answer } of examples(blocks, 'sql', 'text')) {
    test(`line ${line}: ${call.split('\n')[0]}`, async () => {
      expect(asTable(await world.sql.unsafe(call))).toBe(answer)
    })
  }
})

describe('the page shows what is sent', () => {
  beforeAll(async () => {
    await world.sql`delete from tracking.sinks`
    for (const { text } of blocks.filter(({ language, text }) => language === 'sql' && /^select tracking\.create_sink/.test(text))) {
      await world.sql.unsafe(text)
    }
    // Bento's sink wants another channel as well, for the event that all are shown.
    await world.sql`update tracking.sinks set channels = channels || '{reports}' where kind = 'bento'`
    for (const [name, { url }] of Object.entries(receivers)) {
      const where = name === 'hook' ? { url: `${url}/hooks` } : { host: url }
      await world.sql`update tracking.sinks set settings = settings || ${world.sql.json(where)} where name = ${name}`
    }
    const bob = await world.signIn('bob@acme.test')
    const acme = 'a0000000-0000-4000-8000-000000000001'
    const [{ text } = { text: '' }] = blocks.filter(({ language }) => language === 'js')
    await new Function('bob', 'acme', `return ${text.replace(/^await /, '')}`)(bob, acme)
  })

  test.each([['posthog', 'PostHog'], ['logsnag', 'LogSnag'], ['bento', 'Bento'], ['hook', 'Webhooks']])(
    'to the sink %s', async (sink, heading) => {
      expect(await deliver(world.sql, sink, { environment })).toBeNull()
      const shown = JSON.parse((await bodyUnder(heading))!)
      expect(withEllipses(receivers[sink]!.requests.at(-1)!.body, shown)).toEqual(shown)
    })

  test('with a webhook\'s headers', async () => {
    const shown = blocks.find(({ text }) => text.startsWith('webhook-id'))!.text.split('\n').map((line) => line.split(': '))
    const { headers } = receivers.hook!.requests.at(-1)!
    expect(shown.map(([name]) => name)).toEqual(['webhook-id', 'webhook-timestamp', 'webhook-signature'])
    expect(shown[0]![1]).toBe(headers['webhook-id'])
    for (const [name, value] of shown) expect(String(headers[name!]).length, name).toBe(value!.length)
  })

  test('and the mail of an onboarding that is done', async () => {
    const bob = await world.signIn('bob@acme.test')
    await bob.rpc('track_event', { v2: {
      event: 'onboarding-step-done', channel: 'onboarding-v2', tracking_version: 2, tags: { app_id: 'com.acme.app' } } })
    expect(await deliver(world.sql, 'bento', { environment })).toBeNull()
    const shown = JSON.parse((await bodyUnder('Bento', 1))!)
    const sent = receivers.bento!.requests.map(({ body }) => body as { events: { type: string }[] })
    const mails = sent.flatMap(({ events }) => events.filter(({ type }) => type === 'app:updated'))
    expect(withEllipses(mails, shown.events)).toEqual(shown.events)
  })
})

test('every link of the pages leads somewhere', async () => {
  const paths = ['README.md', ...['analytics', 'dashboard', 'delivery', 'events', 'keeping'].map((name) => `docs/${name}.md`)]
  const pages: Record<string, string> = Object.fromEntries(await Promise.all(paths.map(
    async (path) => [path, await readFile(path, 'utf8')] as const)))
  for (const [path, text] of Object.entries(pages)) {
    for (const [, link = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(link)) continue
      const [file = '', anchor] = link.split('#')
      const target = file === '' ? path : new URL(file, `file:///${path}`).pathname.slice(1)
      const found = pages[target] ?? await readFile(target, 'utf8')
      if (anchor) expect(anchorsOf(found), `${path}: ${link}`).toContain(anchor)
    }
  }
})

/** The nth JSON under a heading. */
async function bodyUnder(heading: string, nth = 0): Promise<string | undefined> {
  const lines = (await readFile(page, 'utf8')).split('\n')
  const start = lines.indexOf(`### ${heading}`)
  const end = lines.findIndex((line, n) => n > start && /^##/.test(line))
  return blocks.filter(({ language, line }) => language === 'json' && line > start && line < end)[nth]?.text
}

/** Headings as links name them. */
function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-'))
}
