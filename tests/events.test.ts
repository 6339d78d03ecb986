import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import fc from 'fast-check'
import ts from 'typescript'
import { afterAll, beforeAll, beforeEach, describe, expect, expectTypeOf, test } from 'vitest'
import { publishableKey, secretKey } from '../src/api.ts'
import {
  analysisErrorStatus, analysisEvents, analysisResult, commandErrorCategory, commandEvents, dashboardEvents, defineCatalog,
  events, eventType, faultInTags, isEvent, nativeBuilderEvents, onboardingErrorCategory, onboardingEvents, onboardingSteps,
  uploadEvents, uploadFailureCategory,
  type Catalog, type EventName, type EventType, type EventTypeOf, type TagsOf, type TagType, type UploadFailureCategory,
} from '../src/events.ts'
import { createTracker } from '../src/tracker.ts'
import { orgs, people } from './demo.ts'
import { CertificateLimitError, secrets, text, withFields } from './thrown.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

const reports = defineCatalog({
  'Report Exported': { channel: 'reports', icon: '📄', scope: 'org', tags: { 'format': ['csv', 'pdf'], 'rows?': 'integer', 'share?': 'number', 'by_mail?': 'boolean', 'query?': 'json' } },
  'Report Opened': { scope: 'app', tags: { title: 'string' } },
  'Signed Out': { scope: 'actor' },
  'step-*': { tags: { n: 'integer' } },
  'step-by-step-*': { tags: { name: 'string' } },
})

let world: World
beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())

describe('a catalog\'s types', () => {
  type Reports = typeof reports

  test('know the names, also those that begin alike', () => {
    expectTypeOf<EventName<Reports>>().toEqualTypeOf<
      'Report Exported' | 'Report Opened' | 'Signed Out' | `step-${string}` | `step-by-step-${string}`>()
    expectTypeOf<EventName<Catalog>>().toEqualTypeOf<string>()
  })

  test('know the tags, their enums, and which may be left out', () => {
    expectTypeOf<TagsOf<Reports, 'Report Exported'>>().toEqualTypeOf<{
      readonly format: 'csv' | 'pdf'
      readonly rows?: number | null
      readonly share?: number | null
      readonly by_mail?: boolean | null
      readonly query?: unknown
    }>()
    expectTypeOf<TagsOf<Reports, 'Report Opened'>>().toEqualTypeOf<{ readonly title: string }>()
    expectTypeOf<TagsOf<Reports, 'Signed Out'>>().toEqualTypeOf<{ readonly [tag: string]: never }>()
    expectTypeOf<TagsOf<Catalog, string>>().toEqualTypeOf<{ readonly [tag: string]: unknown }>()
  })

  test('know an event by the longest name that it begins with', () => {
    expectTypeOf<TagsOf<Reports, 'step-one'>>().toEqualTypeOf<{ readonly n: number }>()
    expectTypeOf<TagsOf<Reports, 'step-by-step-one'>>().toEqualTypeOf<{ readonly name: string }>()
    expectTypeOf<TagsOf<Reports, `step-by-step-${number}`>>().toEqualTypeOf<{ readonly name: string }>()
  })

  test('know the scope, the channel and the icon as they are written', () => {
    expectTypeOf<EventTypeOf<Reports, 'Report Opened'>['scope']>().toEqualTypeOf<'app'>()
    expectTypeOf<EventTypeOf<Reports, 'Report Exported'>['icon']>().toEqualTypeOf<'📄'>()
  })

  test('hold the calls of a tracker', () => {
    const tracker = createTracker({ url: 'http://127.0.0.1', publishableKey }, { catalog: reports, disabled: true })
    tracker.track('Report Exported', { tags: { format: 'csv', rows: null, query: [] } })
    tracker.track('Report Opened', { app: 'com.acme.app', tags: { title: 'Q3' } })
    tracker.track('Signed Out')
    tracker.track('step-one', { tags: { n: 1 } })
    tracker.track('step-by-step-one', { org: orgs.acme, tags: { name: 'x' } })
    // @ts-expect-error an event of an app names the app
    tracker.track('Report Opened', { tags: { title: 'Q3' } })
    // @ts-expect-error tags that are needed
    tracker.track('Report Exported')
    // @ts-expect-error of the longer name
    tracker.track('step-by-step-one', { tags: { n: 1 } })
    // @ts-expect-error with a value of its enum
    tracker.track('Report Exported', { tags: { format: 'xls' } })
    // @ts-expect-error and no other tags
    tracker.track('Signed Out', { tags: { why: 'late' } })
    // @ts-expect-error nor other events
    tracker.track('Signed In')
    expect(tracker.stats().queued).toBe(0)
  })

  test('refuse what is no catalog', () => {
    // @ts-expect-error there is no such scope
    defineCatalog({ A: { scope: 'everybody' } })
    // @ts-expect-error nor such a type of tag
    defineCatalog({ A: { tags: { at: 'date' } } })
  })

  test('are those of the families, spread or all together', () => {
    const mine = { ...reports, ...uploadEvents }
    expectTypeOf<TagsOf<typeof mine, 'Builder Upload Failed'>['failure_category']>().toEqualTypeOf<UploadFailureCategory>()
    expectTypeOf<TagsOf<typeof events, 'CLI AI Build Analysis Choice'>['choice']>()
      .toEqualTypeOf<'capgo_ai' | 'local_ai' | 'skip' | 'auto_upload' | 'retry'>()
    expectTypeOf<TagsOf<typeof events, 'demo-onboarding-step-1-opened'>['step']>().toEqualTypeOf<number | null | undefined>()
  })
})

describe('an event\'s kind', () => {
  test('is found by its name, else by the longest name that it begins with', () => {
    expect(eventType(reports, 'step-*')).toBe(reports['step-*'])
    expect(eventType(reports, 'step-one')).toBe(reports['step-*'])
    expect(eventType(reports, 'step-by-step-one')).toBe(reports['step-by-step-*'])
    expect(eventType(events, 'onboarding-step-copy-command')).toBe(events['onboarding-step-*'])
    expect(eventType(events, 'onboarding-step-invite-teammate')).toMatchObject({ icon: '👥' })
  })

  test('is none for other names, whatever objects inherit', () => {
    for (const name of ['report exported', 'Report Exported ', 'step', '', 'constructor', '__proto__']) {
      expect(eventType(reports, name)).toBeUndefined()
    }
  })

  const faults: [tags: unknown, fault: string | undefined][] = [
    [{ format: 'csv' }, undefined],
    [{ format: 'pdf', rows: 3, share: 0.5, by_mail: true, query: [{}] }, undefined],
    [{ format: 'pdf', rows: 3.0, share: 1e300, by_mail: null, query: null }, undefined],
    [{ format: 'pdf', app_id: 'com.acme.app', org_id: orgs.acme }, undefined],
    [{ 'format': 'pdf', 'app-id': 'com.acme.app', 'rows': undefined }, undefined],
    [{ format: 'xls' }, 'The tag "format" of "Report Exported" is none of "csv", "pdf".'],
    [{ format: ['csv'] }, 'The tag "format" of "Report Exported" is none of "csv", "pdf".'],
    [{}, 'The tag "format" of "Report Exported" is missing.'],
    [undefined, 'The tag "format" of "Report Exported" is missing.'],
    [{ format: null }, 'The tag "format" of "Report Exported" is missing.'],
    [{ format: 'csv', colour: 'red' }, 'The tag "colour" of "Report Exported" is unknown.'],
    [{ format: 'csv', colour: null }, 'The tag "colour" of "Report Exported" is unknown.'],
    [{ 'format': 'csv', 'rows?': 1 }, 'The tag "rows?" of "Report Exported" is unknown.'],
    [{ format: 'csv', rows: 3.5 }, 'The tag "rows" of "Report Exported" is not an integer.'],
    [{ format: 'csv', rows: '3' }, 'The tag "rows" of "Report Exported" is not an integer.'],
    [{ format: 'csv', share: false }, 'The tag "share" of "Report Exported" is not a number.'],
    [{ format: 'csv', by_mail: 'true' }, 'The tag "by_mail" of "Report Exported" is not a boolean.'],
  ]
  test.each(faults)('says of the tags %j: %s', (tags, fault) => {
    expect(faultInTags(reports, 'Report Exported', tags)).toBe(fault)
  })

  test('has the faults that the database finds in it, in the same words', async () => {
    const name = fc.constantFrom('a', 'b', 'c', 'd', 'app_id', 'org_id', 'a?', 'constructor')
    const value = fc.oneof(
      fc.constantFrom(null, undefined, 0, 1, 2.5, -3, 1e300, '', 'x', 'y', '1', true, false, {}, []), fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }))
    const type = fc.oneof(fc.constantFrom<TagType>('string', 'number', 'integer', 'boolean', 'json'), fc.uniqueArray(fc.constantFrom('x', 'y', '"', '1'), { minLength: 1 }))
    const declared = fc.dictionary(fc.constantFrom('a', 'b?', 'c', 'c?', 'd?'), type)
    await fc.assert(fc.asyncProperty(declared, fc.dictionary(name, value), async (types, tags) => {
      const catalog = { 'Typed': { tags: types }, 'step-*': {}, 'step-by-*': { tags: types } }
      await world.sql`select from tracking.push_event_types(${world.sql.json(catalog)}, 'enforce')`
      for (const event of ['Typed', 'step-1', 'step-by-1', 'Free']) {
        const [row] = await world.sql`select (tracking.faults_in_tags(${event}, ${JSON.stringify(tags)}::text::jsonb))[2] as fault`
        expect(faultInTags(catalog, event, tags)).toBe(row!.fault ?? undefined)
      }
    }), { numRuns: 150 })
    await world.sql`delete from tracking.event_types`
  })

  test('says nothing of an event of no kind', () => {
    expect(faultInTags(reports, 'Free', { anything: 1 })).toBeUndefined()
  })

  test('never repeats a value', () => {
    expect(faultInTags(reports, 'Report Exported', { format: 'hunter2' })).not.toContain('hunter2')
  })

  test('types a row\'s tags', () => {
    const row: { event: string, tags: unknown } = { event: 'Report Exported', tags: { format: 'csv', org_id: orgs.acme } }
    if (!isEvent(reports, 'Report Exported', row)) throw new Error('It is one.')
    expectTypeOf(row.tags.format).toEqualTypeOf<'csv' | 'pdf'>()
    expectTypeOf(row.event).toEqualTypeOf<'Report Exported'>()
    expect(row.tags.format).toBe('csv')
    expect(isEvent(reports, 'Report Exported', { event: 'Report Exported', tags: { format: 'xls' } })).toBe(false)
    expect(isEvent(reports, 'step-*', { event: 'step-1', tags: { n: 1 } })).toBe(true)
    expect(isEvent(reports, 'step-*', { event: 'step-by-step-1', tags: { name: 'x' } })).toBe(false)
  })
})

describe('an event of a family', () => {
  const client = () => createTracker({ url: world.api.url, publishableKey, apiKey: 'as_local_acme_admin' }, { catalog: events })
  const backend = () => createTracker({ url: world.api.url, publishableKey: secretKey }, { catalog: events })

  beforeEach(() => world.sql`truncate events`)
  beforeAll(() => world.sql`select from tracking.push_event_types(${world.sql.json(events)}, 'enforce')`)
  afterAll(() => world.sql`delete from tracking.event_types`)

  const samples = Object.entries(events as Catalog).flatMap(([kind, type]) => {
    const event = kind.replace('*', 'sample')
    const all = Object.entries(type.tags ?? {})
    const needed = all.filter(([tag]) => !tag.endsWith('?'))
    return [[kind, 'with all its tags', event, type, valuesOf(all)], [kind, 'with those it needs', event, type, valuesOf(needed)]] as const
  })

  test.each(samples)('%s is recorded %s, and read back typed', async (kind, _, event, type, tags) => {
    const tracker = kind === 'AI Build Analysis Result' ? backend() : client()
    const where = type.scope === 'app' ? { app: 'com.acme.app' } : type.scope === 'org' ? { org: orgs.acme } : {}
    const actor = kind === 'AI Build Analysis Result' ? { actor: people.ada } : {}
    const answer = await tracker.trackNow(event as never, { tags, ...where, ...actor } as never)

    const { data: row } = await (await world.signIn('ada@acme.test')).from('events').select().eq('event_id', answer.eventId).single()
    expect(isEvent(events as Catalog, kind, row)).toBe(true)
    expect(row).toMatchObject({
      event, channel: type.channel, icon: type.icon, notify: false, tracking_version: 2,
      actor_id: people.ada, org_id: type.scope === 'actor' ? null : orgs.acme, app_id: type.scope === 'app' ? 'com.acme.app' : null,
      source: kind === 'AI Build Analysis Result' ? 'service' : 'client',
    })
    const { app_id: _app, org_id: _org, ...recorded } = row.tags
    expect(recorded).toEqual(tags)
    await tracker.shutdown(10_000)
  })

  test('with raw text for a category is refused by the database, where it knows the family', async () => {
    const untyped = createTracker({ url: world.api.url, publishableKey, apiKey: 'as_local_acme_admin' })
    await expect(untyped.trackNow('Builder Upload Failed', { app: 'com.acme.app', tags: { job_id: 'job-1', upload_size_bytes: 1, failure_category: text } }))
      .rejects.toMatchObject({
        code: 'invalid_tags',
        details: 'The tag "failure_category" of "Builder Upload Failed" is none of "network_error", "unauthorized", "payload_too_large", "storage_failure", "unknown".',
      })
    expect(await world.sql`select from events`).toHaveLength(0)
    await untyped.shutdown(10_000)
  })

  test('the backend\'s is grouped by the app\'s owner where there is one, and is the key owner\'s alone where not', async () => {
    const tracker = backend()
    const tags = { job_id: 'job-1', result: 'unauthorized', logs_bytes: 0 } as const
    for (const app of ['com.demo.app', 'com.unknown.app']) {
      await tracker.trackNow('AI Build Analysis Result', { app, actor: people.bob, tags })
    }
    const rows = await world.sql`select actor_id, org_id, app_id from events order by event_id`
    expect([...rows]).toEqual([
      { actor_id: people.bob, org_id: orgs.demo, app_id: 'com.demo.app' },
      { actor_id: people.bob, org_id: null, app_id: null },
    ])
    await tracker.shutdown(10_000)
  })

  test('tells nothing of an error\'s text, whatever was thrown', async () => {
    const tracker = client()
    const app = 'com.acme.app'
    const thrown = [
      new Error(text), new TypeError('fetch failed', { cause: withFields({ code: 'ECONNREFUSED', address: 'db.internal' }) }),
      new AggregateError([withFields({ status: 401 }), new Error(text)], text), withFields({ status: 413, response: { data: text } }),
      withFields({ name: text, code: text, phase: text, kind: text, status: text }), { message: text, details: text, hint: text, code: 'PT403' },
      new CertificateLimitError(text), new Response(text, { status: 502, headers: { 'x-secret': 'hunter2' } }), text, Object.create(null), undefined,
    ]
    for (const error of thrown) {
      const job = { job_id: 'job-1', platform: 'ios' } as const
      for (const platform of ['ios', 'android'] as const) {
        const error_category = onboardingErrorCategory(error, { platform, step: 'import-scanning' })
        tracker.track('Builder Onboarding Step', { app, tags: { journey_id: 'bj_1', step: 'error', platform, error_category } })
      }
      tracker.track('Builder Onboarding Action', { app, tags: { journey_id: 'bj_1', step: 'sa-json-validating', platform: 'android', action: 'android_sa_validation_result', result: 'failure' } })
      tracker.track('Builder Onboarding Quit', { app, tags: { journey_id: 'bj_1', last_step: 'error' } })
      tracker.track('Builder Upload Failed', { app, tags: { ...job, upload_size_bytes: 1, failure_category: uploadFailureCategory(error) } })
      tracker.track('CLI AI Build Analysis Choice', { app, tags: { ...job, choice: 'retry', triggered_by: 'menu' } })
      tracker.track('CLI AI Build Analysis Result', { app, tags: { ...job, result: analysisResult(error), error_status: analysisErrorStatus(error) } })
      tracker.track('Build failed', { app, tags: { platform: 'ios', status: 'unknown' } })
      tracker.track('demo-onboarding-step-1-closed', { org: orgs.acme, tags: { step: 1 } })
      tracker.track('CLI Command Failed', { tags: { command_path: 'upload', error_category: commandErrorCategory(error), exit_code: 1 } })
    }
    await tracker.shutdown(30_000)

    const rows = await world.sql<{ row: string }[]>`select to_jsonb(e)::text as row from events as e`
    expect(rows).toHaveLength(thrown.length * 10)
    for (const { row } of rows) {
      for (const secret of [...secrets, 'hunter2', 'Bearer', '/home', 'node_modules', 'db.internal', '    at ']) expect(row).not.toContain(secret)
    }
  })

  test('has no place for text, as far as its types go', () => {
    const tracker = client()
    const error = new Error(text)
    // Never called: it is the compiler that is asked.
    const careless = () => {
      // @ts-expect-error a category is no message
      tracker.track('Builder Upload Failed', { app: 'a', tags: { job_id: 'j', upload_size_bytes: 1, failure_category: error.message } })
      // @ts-expect-error there is no such tag
      tracker.track('Builder Onboarding Quit', { app: 'a', tags: { journey_id: 'j', error: error.message } })
      // @ts-expect-error nor any, where there are none
      tracker.track('User visit', { tags: { path: '/home/ada' } })
      // @ts-expect-error a tag that is needed
      tracker.track('Build requested', { app: 'a', tags: {} })
      // @ts-expect-error and the app
      tracker.track('Build requested', { tags: { platform: 'ios' } })
      // @ts-expect-error there is no such event
      tracker.track('Build Requested', { app: 'a' })
    }
    expect(careless).toBeTypeOf('function')
  })

  function valuesOf(tags: (readonly [string, TagType])[]): Record<string, unknown> {
    return Object.fromEntries(tags.map(([tag, type]) => [tag.replace(/\?$/, ''), valueOf(type)]))
  }

  function valueOf(type: TagType): unknown {
    if (typeof type !== 'string') return type.at(-1)
    return { string: 'some-id', number: 1.5, integer: 42, boolean: true, json: [{}] }[type]
  }
})

describe('docs/events.md', () => {
  const path = new URL('../docs/events.md', import.meta.url)

  test('has every event of the catalog, with its channel, icon, scope, sentence and tags', async () => {
    expect(familiesIn(await readFile(path, 'utf8'))).toEqual(
      Object.fromEntries(Object.entries(events).map(([name, { tags = {}, ...type }]: [string, EventType]) => [name, { ...type, tags }])))
  })

  test('shows calls that compile, and are recorded', async () => {
    const page = await readFile(path, 'utf8')
    const [opening = '', ...calls] = [...page.matchAll(/^```ts\n(.*?)\n```$/gms)].map(({ 1: code = '' }) => code)
    expect(calls).toHaveLength(6)
    await world.sql`truncate events`
    const given = { url: world.api.url, publishableKey, secretKey, apiKey: 'as_local_acme_admin', keyOwner: people.ada }
    const source = [
      ...Object.entries(given).map(([name, value]) => `const ${name}: string = '${value}'`),
      'const error: unknown = { status: 503 }',
      opening.replace('\'actorscope\'', `'${resolve('src/tracker.ts')}'`).replace('\'actorscope/catalog\'', `'${resolve('src/events.ts')}'`),
      'const backend = createTracker({ url, publishableKey: secretKey }, { catalog: events })',
      ...calls,
      'await Promise.all([tracker.shutdown(30_000), backend.shutdown(30_000)])',
    ].join('\n')
    await inFile(source, async (file) => {
      expect(complaintsOf(file)).toEqual([])
      await promisify(execFile)(process.execPath, ['--import', 'tsx', file])
    })
    const rows = await world.sql<{ event: string, tags: object }[]>`select event, tags from events order by event`
    expect(rows.map(({ event }) => event)).toEqual([
      'AI Build Analysis Result', 'Build succeeded', 'Builder Onboarding Step', 'Builder Upload Failed', 'CLI AI Build Analysis Choice',
      'Doctor Ran', 'demo-onboarding-step-2-update-selected', 'onboarding-step-copy-command'].sort())
    for (const { event, tags } of rows) expect(faultInTags(events, event, tags)).toBeUndefined()
  })

  /** What the page says, as a catalog. */
  function familiesIn(text: string): Catalog {
    const steps = [...text.slice(text.indexOf('### Steps'), text.indexOf('## Upload')).matchAll(/`([^`]+)`/g)].map(({ 1: step = '' }) => step)
    const typeIn = (cell: string): TagType =>
      cell === '[a step](#steps)' ? steps
        : cell.startsWith('`') ? [...cell.matchAll(/`([^`]+)`/g)].map(({ 1: choice = '' }) => choice)
          : cell as TagType
    return Object.fromEntries(text.split(/^### /m).slice(1).filter((section) => section.startsWith('`')).map((section) => {
      const [, name, channel, icon, scope, description] = /^`(.+?)`\n\n`(.+?)` (\S+) (\w+)\. (.+)\n/.exec(section) ?? []
      const tags = [...section.matchAll(/^\| `(.+?)` \| (.+?) \| (.+) \|$/gm)].map(({ 1: tag = '', 2: type = '' }) => [tag, typeIn(type)])
      return [name, { channel, icon, scope, description, tags: Object.fromEntries(tags) }]
    }))
  }

  /** What the compiler says of a file under the project's own settings. */
  function complaintsOf(file: string): string[] {
    const { config } = ts.readConfigFile('tsconfig.json', ts.sys.readFile)
    const { options } = ts.parseJsonConfigFileContent(config, ts.sys, '.')
    return ts.getPreEmitDiagnostics(ts.createProgram([file], options)).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
  }

  async function inFile(source: string, work: (file: string) => Promise<void>): Promise<void> {
    const { path, remove } = await temporaryFolder()
    try {
      const file = join(path, 'examples.mts')
      await writeFile(file, source)
      await work(file)
    } finally {
      await remove()
    }
  }
})

test('one family is bundled without the others', async () => {
  const bundled = async (name: string) => {
    const { outputFiles } = await build({
      stdin: { contents: `import { ${name} } from './src/events.ts'; console.log(${name})`, resolveDir: '.' },
      bundle: true, format: 'esm', write: false, minify: true,
    })
    return outputFiles[0]!.text
  }
  const families = { onboardingEvents, uploadEvents, analysisEvents, nativeBuilderEvents, dashboardEvents, commandEvents }
  for (const [name, family] of Object.entries(families)) {
    const code = await bundled(name)
    for (const event of Object.keys(events)) expect(code.includes(`"${event}"`), `${event} with ${name}`).toBe(Object.hasOwn(family, event))
  }
  expect(await bundled('uploadFailureCategory')).not.toContain('Builder')
  expect(Object.keys(events)).toEqual(Object.values(families).flatMap((family) => Object.keys(family)))
  expect(new Set(onboardingSteps).size).toBe(onboardingSteps.length)
})
