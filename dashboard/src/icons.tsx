const paths = {
  activity: 'M3 17V9m5 8V4m5 13v-6m4 6V7',
  live: 'M10 10h.01M6.5 13.5a5 5 0 0 1 0-7m7 0a5 5 0 0 1 0 7M4 16a8.5 8.5 0 0 1 0-12m12 0a8.5 8.5 0 0 1 0 12',
  funnel: 'M3 4h14l-5.5 6.5V16l-3 1.5v-7z',
  retention: 'M3 4h4v4H3zM3 12h4v4H3zM11 4h4v4h-4zM11 12h1',
  active: 'M7 9a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2 17c0-3 2-5 5-5s5 2 5 5M13 3.5a3 3 0 0 1 0 5M15 12.5c2 .6 3 2.2 3 4.5',
  surfaces: 'M10 12a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM7 17a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM13 17a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9z',
  people: 'M10 10a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM3.5 17.5c0-3.5 2.8-5 6.5-5s6.5 1.5 6.5 5',
  builds: 'M10 2.5l6.5 3.7v7.6L10 17.5l-6.5-3.7V6.2zM3.7 6.4L10 10l6.3-3.6M10 10v7.3',
  up: 'M10 16V4M5 9l5-5 5 5',
  down: 'M10 4v12M5 11l5 5 5-5',
  remove: 'M5 5l10 10M15 5L5 15',
  add: 'M10 4v12M4 10h12',
  pause: 'M7 4v12M13 4v12',
  play: 'M6 4l10 6-10 6z',
  copy: 'M7 7V3.5h9.5V13H13M3.5 7H13v9.5H3.5z',
  retry: 'M16 10a6 6 0 1 1-2-4.5M16 3v3.5h-3.5',
  menu: 'M10 5h.01M10 10h.01M10 15h.01',
}
export type IconName = keyof typeof paths

/** A small drawing beside words that say the same. */
export const Icon = ({ name }: { name: IconName }) => (
  <svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d={paths[name]} /></svg>
)

/** Dashboard, command line, builder: one person. */
export const Logo = () => (
  <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
    <circle cx="16" cy="11" r="8" fill="var(--dashboard)" />
    <circle cx="11" cy="20" r="8" fill="var(--cli)" />
    <circle cx="21" cy="20" r="8" fill="var(--builder)" />
    <circle class="eye" cx="16" cy="17" r="3" />
  </svg>
)
