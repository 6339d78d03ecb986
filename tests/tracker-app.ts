// The script of the pages that tests open in a browser. `?api=&key=&queue=&options=` set it up.
import { createClient } from '@supabase/supabase-js'
import { browserQueue, createTracker } from '../src/tracker.ts'

const page = globalThis as any
const settings = new URLSearchParams(page.location.search)
const supabase = createClient(settings.get('api')!, settings.get('key')!)
const errors: string[] = []
const tracker = createTracker(supabase, {
  queue: settings.has('queue') ? browserQueue() : undefined,
  onError: (error) => errors.push(error.code),
  ...JSON.parse(settings.get('options') ?? '{}'),
})
/** Tracks so many events of a name, each with a tag of so many characters. */
const trackMany = (name: string, count: number, characters = 0) => {
  for (let i = 0; i < count; i++) tracker.track(`${name} ${i}`, { tags: { text: 'x'.repeat(characters) } })
}
Object.assign(page, { supabase, tracker, errors, trackMany })
