import chromium from '@sparticuz/chromium'
import { chromium as playwright, type Browser } from 'playwright-core'
import { temporaryFolder } from './world.ts'

// Not those that the package recommends, for a function somewhere in a cloud: they would switch off what a page may not do.
const args = ['--disable-gpu', ...process.getuid?.() === 0 ? ['--no-sandbox'] : []]

/** Starts the Chromium that comes as an npm package; `close` also takes away what it unpacked. */
export async function launchChromium(): Promise<{ browser: Browser, close(): Promise<void> }> {
  const folder = await temporaryFolder()
  const browser = await playwright.launch({ executablePath: await unpack(folder.path), args })
  return {
    browser,
    async close() {
      await browser.close()
      await folder.remove()
    },
  }
}

// It unpacks itself into the system's temporary folder, and takes what lies there for whole: two test files that
// start it at once would meet half of it.
async function unpack(folder: string): Promise<string> {
  const { TMPDIR } = process.env
  process.env.TMPDIR = folder
  try {
    return await chromium.executablePath()
  } finally {
    if (TMPDIR === undefined) delete process.env.TMPDIR
    else process.env.TMPDIR = TMPDIR
  }
}
