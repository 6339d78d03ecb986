// A program that tracks, for tests that end it in every way. What it is to do is its argument, as JSON.
import { writeSync } from 'node:fs'
import { fileQueue } from '../src/file-queue.ts'
import { createTracker } from '../src/tracker.ts'

const { url, key, what, folder, name = 'Event', count = 0, flushAt = 20 } = JSON.parse(process.argv.at(-1)!)
const say = (text: string): unknown => writeSync(1, `${text}\n`)
const tracker = createTracker({ url, publishableKey: key, apiKey: 'as_local_acme_admin' }, {
  queue: folder ? fileQueue(folder) : undefined, flushAt, retryDelay: 20, maxRetryDelay: 200,
  onError: (error, event) => say(`error ${error.code} ${event?.event ?? error.details}`) })
const trackAll = () => { for (let i = 0; i < count; i++) tracker.track(`${name} ${i}`) }

switch (what) {
  case 'nothing':
    break
  case 'end':
    trackAll()
    break
  case 'shutdown':
    trackAll()
    say(JSON.stringify(await tracker.shutdown()))
    process.exit(3)
    break
  case 'exit':
    trackAll()
    process.exit(3)
    break
  case 'now':
    say(JSON.stringify(await tracker.trackNow(name)))
    break
  case 'go on':
    for (let i = 0; ; i++) {
      tracker.track(`${name} ${i}`)
      say(`${name} ${i}`)
      if (i % 5 === 4) await new Promise((done) => setTimeout(done, 1))
    }
  case 'deliver':
    // What was left behind is adopted as soon as it is known who is there.
    await tracker.flush()
    say(JSON.stringify(await tracker.shutdown()))
    break
}
