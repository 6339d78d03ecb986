import { createClient } from '@supabase/supabase-js'
import { expectTypeOf, test } from 'vitest'
import { createTracker, defineCatalog, type Payload, type Recorded, type Stats, type Tracker } from '../src/tracker.ts'

const catalog = defineCatalog({
  'Report Exported': { channel: 'reports', scope: 'org', tags: { 'format': ['csv', 'pdf'], 'rows?': 'integer' } },
  'Bundle Uploaded': { scope: 'app', tags: { 'size?': 'number' } },
  'Signed In': { scope: 'actor' },
  'step-*': { scope: 'actor', tags: { 'journey?': 'string' } },
})

// Never run: what is checked here is whether it compiles.
test('a catalog types names, tags and apps, and without one anything goes', () => {
  const check = (tracker: Tracker<typeof catalog>, any: Tracker) => {
    tracker.track('Report Exported', { tags: { format: 'csv' } })
    tracker.track('Report Exported', { tags: { format: 'pdf', rows: 7 }, org: 'id', timestamp: new Date(), notify: true })
    tracker.track('Bundle Uploaded', { app: 'com.acme.app' })
    tracker.track('Signed In')
    tracker.track('Signed In', { app: 'com.acme.app', org: 'id', context: { ip: 1 } })
    tracker.track('step-one', { tags: { journey: 'j' } })
    tracker.track('step-two')
    // @ts-expect-error there is no such event
    tracker.track('Report Imported')
    // @ts-expect-error a tag is missing
    tracker.track('Report Exported')
    // @ts-expect-error a tag is missing
    tracker.track('Report Exported', { tags: {} })
    // @ts-expect-error no such choice
    tracker.track('Report Exported', { tags: { format: 'xls' } })
    // @ts-expect-error no such tag
    tracker.track('Report Exported', { tags: { format: 'csv', colour: 'red' } })
    // @ts-expect-error not of that type
    tracker.track('Report Exported', { tags: { format: 'csv', rows: '7' } })
    // @ts-expect-error the app is missing
    tracker.track('Bundle Uploaded')
    // @ts-expect-error the event has no tags
    tracker.track('Signed In', { tags: { how: 'password' } })
    // @ts-expect-error there is no such detail
    tracker.track('Signed In', { colour: 'red' })
    // @ts-expect-error as with track
    void tracker.trackNow('Report Exported')
    expectTypeOf(tracker.trackNow('Signed In')).resolves.toEqualTypeOf<Recorded>()
    expectTypeOf(tracker.flush()).resolves.toEqualTypeOf<Stats>()
    expectTypeOf(tracker.track).returns.toBeVoid()

    any.track('Whatever', { tags: { anything: 1n } })
    any.track('Whatever')
  }
  expectTypeOf(check).toBeFunction()
})

test('a tracker is made of a supabase-js client, typed by a database or not, or of a connection', () => {
  type Database = { public: { Tables: {}, Views: {}, Functions: { greet: { Args: { name: string }, Returns: string } }, Enums: {}, CompositeTypes: {} } }
  const check = () => {
    expectTypeOf(createTracker(createClient('url', 'key'))).toEqualTypeOf<Tracker>()
    expectTypeOf(createTracker(createClient<Database>('url', 'key'), { catalog })).toEqualTypeOf<Tracker<typeof catalog>>()
    createTracker({ url: 'url', publishableKey: 'key', apiKey: 'as_1', accessToken: async () => undefined })
    createTracker({ url: 'url', publishableKey: 'key', accessToken: 'jwt' }, { beforeSend: (event: Payload) => event })
    // @ts-expect-error a connection has a key
    createTracker({ url: 'url' })
    // @ts-expect-error there is no such option
    createTracker({ url: 'url', publishableKey: 'key' }, { flushEvery: 1 })
    createTracker({ url: 'url', publishableKey: 'key' }, { catalog: { Inline: { scope: 'actor' } } }).track('Inline')
  }
  expectTypeOf(check).toBeFunction()
})
