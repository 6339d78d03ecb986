import { shortId } from './format.ts'
import { linkTo } from './route.ts'
import { useWorld } from './world.ts'

/** What somebody is called: by the configuration, else a part of their id. */
export function useNames() {
  const { config, viewer, orgs, apps } = useWorld()
  const person = (id: string) => config.people[id]?.split('@')[0] ?? shortId(id)
  return {
    person: (id: string) => (id === viewer.id ? `${config.people[id] ? person(id) : 'You'}` : person(id)),
    /** Of an organization that may not be read, only its apps may: it is named after them. */
    org: (id: string) => {
      const app = apps.find(({ owner_org }) => owner_org === id)
      return orgs.find((org) => org.id === id)?.name ?? (app ? `Owner of ${app.name}` : shortId(id))
    },
    app: (id: string) => apps.find(({ app_id }) => app_id === id)?.name ?? id,
  }
}

export function PersonLink({ id }: { id: string | null }) {
  const { route } = useWorld()
  const names = useNames()
  if (!id) return <span class="faint">a service</span>
  return <a class={/…/.test(names.person(id)) ? 'id' : undefined} href={linkTo(route, 'people', id)} title={id}>{names.person(id)}</a>
}

/** The surfaces that somebody was seen on, each in its color and place, and in words. */
export function SurfaceDots({ surfaces }: { surfaces: string[] }) {
  const shown = inOrder([...usualSurfaces, ...surfaces])
  return (
    <span class="dots">
      {shown.map((surface) => <span key={surface} class={`dot ${surfaces.includes(surface) ? surfaceClass(surface) : 'off'}`} aria-hidden="true" />)}
      <span class="dots-words">{inOrder(surfaces).map(surfaceName).join(', ') || 'none'}</span>
    </span>
  )
}

/** The surfaces that the product comes with, in the order of the way to a first build. */
const usualSurfaces = ['dashboard', 'cli', 'builder']

/** Each surface once: the usual ones first, then a project's own. */
export const inOrder = (surfaces: string[]): string[] =>
  [...usualSurfaces.filter((surface) => surfaces.includes(surface)), ...new Set(surfaces.filter((surface) => !usualSurfaces.includes(surface)).sort())]

/** What the style sheet calls a surface. */
export const surfaceClass = (surface: string | null): string => (surface && usualSurfaces.includes(surface) ? surface : 'other')

export const surfaceName = (surface: string): string => ({ dashboard: 'Dashboard', cli: 'CLI', builder: 'Builder' })[surface] ?? surface
